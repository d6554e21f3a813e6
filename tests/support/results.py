"""What came out: verdicts and dead letters, read from their topics until they are all there.

In: a bootstrap address and a topic. Out: :class:`Got` records. Errors: AssertionError with what is missing.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from kafka import KafkaConsumer, TopicPartition

POLL_TIMEOUT_MS = 50


@dataclass(frozen=True)
class Got:
    """One record as it lies on its topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def header(self, name: str) -> str | None:
        """The last value of a header."""
        found = [value for key, value in self.headers if key == name and value is not None]
        return found[-1].decode() if found else None

    @property
    def document(self) -> dict[str, Any]:
        """The value as JSON."""
        document: dict[str, Any] = json.loads(self.value or b"null")
        return document


class TopicReader:
    """Reads a whole topic from its beginning and keeps what it has read."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.topic = topic
        self._bootstrap = bootstrap
        self.got: list[Got] = []
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=40 * 1024 * 1024,
        )
        numbers = self._consumer.partitions_for_topic(topic) or set()
        assert numbers, f"there is no topic {topic}"
        self._partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        self._consumer.assign(self._partitions)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close(autocommit=False)

    def poll(self) -> None:
        """Read what has come."""
        for records in self._consumer.poll(timeout_ms=POLL_TIMEOUT_MS).values():
            self.got += [
                Got(each.partition, each.offset, each.key, each.value, tuple(each.headers))
                for each in records
            ]

    def until(self, done: Callable[[list[Got]], bool], timeout_s: float = 30.0) -> list[Got]:
        """Read until ``done``; an error where that takes too long."""
        deadline_s = time.monotonic() + timeout_s
        while not done(self.got):
            assert time.monotonic() < deadline_s, (
                f"{self.topic} has {len(self.got)} records after {timeout_s:g} s: "
                f"{[each.key for each in self.got[-5:]]}"
            )
            self.poll()
        return self.got

    def wait_for(self, count: int, timeout_s: float = 30.0) -> list[Got]:
        """Read until that many records are there."""
        return self.until(lambda got: len(got) >= count, timeout_s)

    def wait_for_keys(self, keys: Iterable[str], timeout_s: float = 30.0) -> dict[str, Got]:
        """Read until each of these content ids has a record; the last one of each."""
        wanted = set(keys)

        def there() -> dict[str, Got]:
            named = {(each.key or b"").decode(errors="replace"): each for each in self.got}
            return {key: named[key] for key in wanted if key in named}

        deadline_s = time.monotonic() + timeout_s
        while len(found := there()) < len(wanted):
            missing = sorted(wanted - set(found))
            assert time.monotonic() < deadline_s, (
                f"{self.topic} lacks {len(missing)} of {len(wanted)} after {timeout_s:g} s: "
                f"{missing[:5]}"
            )
            self.poll()
        return found

    def to_end(self, timeout_s: float = 15.0) -> list[Got]:
        """Read all that is on the topic now."""
        deadline_s = time.monotonic() + timeout_s
        ends = self._ends(deadline_s)
        while any(self._position(each) < end for each, end in ends.items()):
            assert time.monotonic() < deadline_s, f"{self.topic} was not read to its end"
            self.poll()
        return self.got

    def _position(self, partition: TopicPartition) -> int:
        return int(self._consumer.position(partition, timeout_ms=1000))

    def _ends(self, deadline_s: float) -> dict[TopicPartition, int]:
        """Where each partition ends now.

        The reader's own high-water marks may be of an answer before this call, and Tansu's answer to
        ``end_offsets`` is too low: so another consumer fetches from where the reader stands.
        """
        consumer = KafkaConsumer(
            bootstrap_servers=self._bootstrap, enable_auto_commit=False, fetch_max_wait_ms=50
        )
        try:
            consumer.assign(self._partitions)
            for each in self._partitions:
                consumer.seek(each, self._position(each))
            while any(consumer.highwater(each) is None for each in self._partitions):
                assert time.monotonic() < deadline_s, f"{self.topic} does not tell its end"
                consumer.poll(timeout_ms=POLL_TIMEOUT_MS)
            return {each: int(consumer.highwater(each)) for each in self._partitions}
        finally:
            consumer.close(autocommit=False)


def content_ids(got: Iterable[Got]) -> Counter[str]:
    """How often each content id (the key) occurs."""
    return Counter((each.key or b"").decode(errors="replace") for each in got)


def verdict_ids(got: Iterable[Got]) -> Counter[str]:
    """How often each verdict's id occurs."""
    return Counter(each.document["id"] for each in got)


def committed_offsets(bootstrap: str, group: str, topic: str) -> dict[int, int | None]:
    """What the group has committed of each partition."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    try:
        numbers = consumer.partitions_for_topic(topic) or set()
        return {
            number: consumer.committed(TopicPartition(topic, number)) for number in sorted(numbers)
        }
    finally:
        consumer.close(autocommit=False)


def letter_of(reader: TopicReader, place: tuple[int, int], timeout_s: float = 20.0) -> Got:
    """The dead letter of the record at this partition and offset."""

    def here(got: Got) -> bool:
        partition = got.header("__connect.errors.partition")
        offset = got.header("__connect.errors.offset")
        return (partition, offset) == (str(place[0]), str(place[1]))

    got = reader.until(lambda all_got: any(map(here, all_got)), timeout_s)
    return next(filter(here, got))
