"""``replay``: sends dead letters back to the input topic, filtered by stage or code.

Reads the dead-letter topic from its beginning to its current end. Each matching record is sent with its original key,
value and headers, and marked in Redis, so that a second replay does not send it again. An event that fails again
becomes a new dead letter, which counts its replays.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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

Headers = Sequence[tuple[str, bytes]]
Report = Callable[[Mapping[str, object]], None]

REPORTED_HEADERS = {
    "stage": dead_letter.STAGE,
    "code": dead_letter.CODE,
    "error": dead_letter.ERROR_MESSAGE,
    "source_offset": dead_letter.OFFSET,
}


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


def run_replay(settings: Settings, wanted: ReplayFilter, out: TextIO, *, only_list: bool) -> None:
    """The command ``replay``: send matching dead letters back and write how many there were.

    Args:
        settings: Brokers, topics and Redis.
        wanted: Which dead letters to send back.
        out: Where the counts go; on a terminal also a text for each matching dead letter, else a log line.
        only_list: Whether to report the matching dead letters without sending any.

    Raises:
        Fatal: The broker or Redis cannot be used, or a dead letter does not carry its value. Records that were
            replayed until then stay marked.
    """
    cache = VerdictCache(connect(settings.redis), settings.redis)
    on_terminal = out.isatty()
    report = _show_on(Console(file=out, highlight=False)) if on_terminal else _log
    counts = Replayer(settings.kafka, cache, wanted, report, only_list).run()
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    out.write(f"{summary or 'no dead letters' if on_terminal else json.dumps(dict(counts))}\n")
    if counts["value_omitted"]:
        raise Fatal(
            f"{counts['value_omitted']} dead letters were too large to carry their value: read the "
            "original records at the topic, partition and offset in their headers"
        )


def _log(result: Mapping[str, object]) -> None:
    structlog.get_logger().info("dead_letter", **result)


def _show_on(console: Console) -> Report:
    def show(result: Mapping[str, object]) -> None:
        place = "partition {partition}, offset {offset}  {stage}: {code}".format_map(result)
        console.print(Text(f"{result['outcome']}  {place}"))
        error = Text(str(result["error"] or ""), overflow="fold")
        console.print(Padding(error, (0, 0, 0, 3), expand=False))

    return show


@dataclass(frozen=True, slots=True)
class Replayer:
    """Sends dead letters back; ``report`` is called with each one that matches."""

    settings: KafkaSettings
    cache: VerdictCache
    wanted: ReplayFilter
    report: Report
    only_list: bool

    def run(self) -> Counter[str]:
        """How many were ``replayed`` (or ``listed``), ``filtered``, ``already_replayed``, ``value_omitted``.

        Raises:
            Fatal: The broker or Redis cannot be used.
        """
        try:
            producer = KafkaProducer(**producer_options(self.settings))
            try:
                return self._replay_topic(producer)
            finally:
                producer.close(timeout=5)
        except (KafkaError, Retryable) as error:
            reason = repr(error) if isinstance(error, KafkaError) else str(error)
            raise Fatal(f"replay stopped, run it again to continue: {reason}") from error

    def _replay_topic(self, producer: KafkaProducer) -> Counter[str]:
        counts: Counter[str] = Counter()
        for record in read_topic(self.settings, self.settings.dead_letter_topic, time.monotonic):
            counts[self._replay(producer, record)] += 1
            if counts["replayed"] + counts["listed"] == self.wanted.limit:
                break
        return counts

    def _replay(
        self,
        producer: KafkaProducer,
        record: Any,  # noqa: ANN401 (kafka-python's ConsumerRecord has no types)
    ) -> str:
        headers = list(record.headers)
        if not self.wanted.matches(headers):
            return "filtered"
        place = f"{record.partition}:{record.offset}:{record.timestamp}"
        mark = f"replay:{self.settings.dead_letter_topic}:{place}"
        outcome = self._outcome(headers, mark)
        if outcome == "replayed":
            original = dead_letter.replayed_headers(headers)
            sent = producer.send(self.settings.input_topic, record.value, record.key, original)
            sent.get(timeout=self.settings.delivery_timeout_ms / 1000 + 5)
            self.cache.record([Published(mark)])
        reported = {
            name: dead_letter.header(headers, header) for name, header in REPORTED_HEADERS.items()
        }
        self.report(
            {"outcome": outcome, "partition": record.partition, "offset": record.offset} | reported
        )
        return outcome

    def _outcome(self, headers: Headers, mark: str) -> str:
        if dead_letter.header(headers, dead_letter.VALUE_OMITTED):
            return "value_omitted"
        if self.only_list:
            return "listed"
        return "already_replayed" if self.cache.published([mark]) else "replayed"
