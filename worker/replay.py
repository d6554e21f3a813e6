"""``python -m worker replay``: dead letters back to the input, filtered by stage or code.

Reads the dead-letter topic from its beginning to the end it has when it is reached, sends what matches back with
its original key, value and headers, and marks it in Redis, so that a second replay does not send it again. An event
that fails again comes back as a new dead letter, which counts its replays.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError

from worker import dead_letter
from worker.cache import Published, VerdictCache
from worker.errors import Fatal, Retryable
from worker.kafka import producer_options
from worker.read_topic import read_topic
from worker.settings import KafkaSettings
from worker.types import Clock


@dataclass(frozen=True, slots=True)
class ReplayFilter:
    """Which dead letters go back; None matches all."""

    stage: str | None = None
    code: str | None = None
    limit: int | None = None

    def matches(self, headers: list[tuple[str, bytes]]) -> bool:
        """Whether stage and code of this dead letter are asked for."""
        return self.stage in (
            None,
            dead_letter.header(headers, dead_letter.STAGE),
        ) and self.code in (
            None,
            dead_letter.header(headers, dead_letter.CODE),
        )


def replay(
    settings: KafkaSettings,
    cache: VerdictCache,
    wanted: ReplayFilter,
    clock: Clock,
    *,
    only_list: bool,
) -> Counter[str]:
    """Send the matching dead letters back.

    Returns:
        How many were ``replayed`` (or ``listed``), ``filtered``, ``already_replayed``, ``value_omitted``.

    Raises:
        Fatal: The broker or Redis cannot be used; what was replayed until then stays marked.
    """
    counts: Counter[str] = Counter()
    try:
        producer = KafkaProducer(**producer_options(settings))
        try:
            for record in read_topic(settings, settings.dead_letter_topic, clock):
                counts[_one(producer, settings, cache, record, wanted, only_list=only_list)] += 1
                if (
                    wanted.limit is not None
                    and counts["replayed"] + counts["listed"] >= wanted.limit
                ):
                    break
        finally:
            producer.close(timeout=5)
    except KafkaError as error:
        raise Fatal(f"replay stopped, run it again to go on: {error!r}") from error
    except Retryable as error:
        raise Fatal(f"replay stopped, run it again to go on: {error}") from error
    return counts


def _one(
    producer: KafkaProducer,
    settings: KafkaSettings,
    cache: VerdictCache,
    record: Any,  # noqa: ANN401 (kafka-python's ConsumerRecord has no types)
    wanted: ReplayFilter,
    *,
    only_list: bool,
) -> str:
    headers = list(record.headers)
    if not wanted.matches(headers):
        return "filtered"
    mark = (
        f"replay:{settings.dead_letter_topic}:{record.partition}:{record.offset}:{record.timestamp}"
    )
    outcome = _outcome(cache, headers, mark, only_list=only_list)
    if outcome == "replayed":
        sent = producer.send(
            settings.input_topic, record.value, record.key, dead_letter.replayed_headers(headers)
        )
        sent.get(timeout=settings.delivery_timeout_ms / 1000 + 5)
        cache.record([Published(mark)])
    structlog.get_logger().info(
        "dead_letter",
        outcome=outcome,
        partition=record.partition,
        offset=record.offset,
        stage=dead_letter.header(headers, dead_letter.STAGE),
        code=dead_letter.header(headers, dead_letter.CODE),
        error=dead_letter.header(headers, dead_letter.ERROR_MESSAGE),
        source_offset=dead_letter.header(headers, dead_letter.OFFSET),
    )
    return outcome


def _outcome(
    cache: VerdictCache, headers: list[tuple[str, bytes]], mark: str, *, only_list: bool
) -> str:
    if dead_letter.header(headers, dead_letter.VALUE_OMITTED):
        return "value_omitted"
    if only_list:
        return "listed"
    return "already_replayed" if cache.published([mark]) else "replayed"
