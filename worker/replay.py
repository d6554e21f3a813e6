"""``replay``: sends dead letters back to the input topic, filtered by stage or code.

Reads the dead-letter topic from its beginning to its current end. Each matching record is sent with its original key,
value and headers, and marked in Redis, so that a second replay does not send it again. An event that fails again
becomes a new dead letter, which counts its replays.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from worker import dead_letter
from worker.cache import Published, VerdictCache, connect
from worker.errors import Fatal, Retryable
from worker.kafka import producer_options, read_topic
from worker.settings import KafkaSettings, Settings
from worker.types import Clock

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class ReplayFilter:
    """Which dead letters to send back; None matches all."""

    stage: str | None = None
    code: str | None = None
    limit: int | None = None

    def matches(self, headers: Headers) -> bool:
        """Whether a dead letter has the wanted stage and code."""
        stage = dead_letter.header(headers, dead_letter.STAGE)
        code = dead_letter.header(headers, dead_letter.CODE)
        return self.stage in (None, stage) and self.code in (None, code)


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """One dead letter that matched: what was done with it, where it is, and why it failed."""

    outcome: str
    partition: int
    offset: int
    stage: str | None
    code: str | None
    error: str | None
    source_offset: str | None


Report = Callable[[ReplayResult], None]


def run_replay(settings: Settings, wanted: ReplayFilter, out: TextIO, *, only_list: bool) -> None:
    """The command ``replay``: send matching dead letters back and write how many there were.

    Raises:
        Fatal: The broker or Redis cannot be used, or a dead letter does not carry its value.
    """
    cache = VerdictCache(connect(settings.redis), settings.redis)
    on_terminal = out.isatty()
    report = _show_on(Console(file=out, highlight=False)) if on_terminal else _log_result
    replayer = Replayer(
        settings.kafka, cache, wanted, time.monotonic, report=report, only_list=only_list
    )
    counts = replayer.run()
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    out.write(f"{summary or 'no dead letters' if on_terminal else json.dumps(dict(counts))}\n")
    if counts["value_omitted"]:
        raise Fatal(
            f"{counts['value_omitted']} dead letters were too large to carry their value: read the "
            "original records at the topic, partition and offset in their headers"
        )


def _log_result(result: ReplayResult) -> None:
    """Write a result to the log."""
    fields = {name: getattr(result, name) for name in ReplayResult.__slots__}
    structlog.get_logger().info("dead_letter", **fields)


def _show_on(console: Console) -> Report:
    """A report that writes each result to a terminal."""

    def show(result: ReplayResult) -> None:
        where = f"partition {result.partition}, offset {result.offset}"
        console.print(Text(f"{result.outcome}  {where}  {result.stage}: {result.code}"))
        console.print(
            Padding(Text(result.error or "", overflow="fold"), (0, 0, 0, 3), expand=False)
        )

    return show


class Replayer:
    """Sends dead letters back.

    Args:
        settings: Brokers and topics.
        cache: Remembers what was replayed.
        wanted: Which dead letters to send back.
        clock: Monotonic seconds.
        report: Called with every dead letter that matched.
        only_list: Whether to report the matching dead letters without sending any.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        cache: VerdictCache,
        wanted: ReplayFilter,
        clock: Clock,
        *,
        report: Report,
        only_list: bool,
    ) -> None:
        self._settings, self._cache, self._wanted = settings, cache, wanted
        self._clock, self._report, self._only_list = clock, report, only_list

    def run(self) -> Counter[str]:
        """Send the matching dead letters back.

        Returns:
            How many were ``replayed`` (or ``listed``), ``filtered``, ``already_replayed``, ``value_omitted``.

        Raises:
            Fatal: The broker or Redis cannot be used; records that were replayed until then stay marked.
        """
        try:
            producer = KafkaProducer(**producer_options(self._settings))
            try:
                return self._replay_topic(producer)
            finally:
                producer.close(timeout=5)
        except (KafkaError, Retryable) as error:
            reason = repr(error) if isinstance(error, KafkaError) else str(error)
            raise Fatal(f"replay stopped, run it again to continue: {reason}") from error

    def _replay_topic(self, producer: KafkaProducer) -> Counter[str]:
        counts: Counter[str] = Counter()
        limit = self._wanted.limit
        for record in read_topic(self._settings, self._settings.dead_letter_topic, self._clock):
            counts[self._replay(producer, record)] += 1
            if limit is not None and counts["replayed"] + counts["listed"] >= limit:
                break
        return counts

    def _replay(
        self,
        producer: KafkaProducer,
        record: Any,  # noqa: ANN401 (kafka-python's ConsumerRecord has no types)
    ) -> str:
        settings, headers = self._settings, list(record.headers)
        if not self._wanted.matches(headers):
            return "filtered"
        place = f"{record.partition}:{record.offset}:{record.timestamp}"
        mark = f"replay:{settings.dead_letter_topic}:{place}"
        outcome = self._outcome(headers, mark)
        if outcome == "replayed":
            sent = producer.send(
                settings.input_topic,
                record.value,
                record.key,
                dead_letter.replayed_headers(headers),
            )
            sent.get(timeout=settings.delivery_timeout_ms / 1000 + 5)
            self._cache.record([Published(mark)])
        self._report(
            ReplayResult(
                outcome=outcome,
                partition=record.partition,
                offset=record.offset,
                stage=dead_letter.header(headers, dead_letter.STAGE),
                code=dead_letter.header(headers, dead_letter.CODE),
                error=dead_letter.header(headers, dead_letter.ERROR_MESSAGE),
                source_offset=dead_letter.header(headers, dead_letter.OFFSET),
            )
        )
        return outcome

    def _outcome(self, headers: Headers, mark: str) -> str:
        if dead_letter.header(headers, dead_letter.VALUE_OMITTED):
            return "value_omitted"
        if self._only_list:
            return "listed"
        return "already_replayed" if self._cache.published([mark]) else "replayed"
