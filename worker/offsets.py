"""Commit, always last: which offsets may be acknowledged.

A record is acknowledged when it and every record taken before it in its partition have been published.
Within one book offsets only grow: where they jump back, the topic was made anew or the position reset, and
a new book begins.
:class:`OffsetTracker` keeps that book. It is shared by the polling thread (takes, commits), the publishing
thread (finishes) and the rebalance callback, hence the lock.
"""

import threading
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from worker.event import Record
from worker.types import AckToken

Partition = tuple[str, int]


@dataclass(slots=True)
class PartitionOffsets:
    """The records of one assignment of a partition, in order."""

    epoch: int
    waiting: deque[AckToken] = field(default_factory=deque)
    last_offset: int = -1  # the last one taken
    finished: set[int] = field(default_factory=set)
    next_offset: int | None = None  # first offset after the contiguous finished prefix
    committed: int | None = None


class OffsetTracker:
    """Books of the partitions that this worker owns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._partitions: dict[Partition, PartitionOffsets] = {}
        self._epochs = 0
        self._count = 0
        self._bytes = 0

    def take(self, record: Record) -> AckToken:
        """Enter a record; its token acknowledges it later."""
        with self._lock:
            key = (record.topic, record.partition)
            book = self._partitions.get(key)
            if book is not None and record.offset <= book.last_offset:
                self._close(key)
                book = None
            if book is None:
                self._epochs += 1
                book = self._partitions[key] = PartitionOffsets(self._epochs)
            token = AckToken(*key, record.offset, book.epoch, record.size_bytes)
            book.waiting.append(token)
            book.last_offset = record.offset
            self._count += 1
            self._bytes += token.size_bytes
            return token

    def finish(self, token: AckToken) -> bool:
        """Mark a record as published; False if its partition has moved away meanwhile.

        Doing so again changes nothing.
        """
        with self._lock:
            book = self._partitions.get((token.topic, token.partition))
            if book is None or book.epoch != token.epoch:
                return False
            first_open = book.waiting[0].offset if book.waiting else token.offset + 1
            if token.offset < first_open or token.offset in book.finished:
                return True
            book.finished.add(token.offset)
            self._count -= 1
            self._bytes -= token.size_bytes
            while book.waiting and book.waiting[0].offset in book.finished:
                offset = book.waiting.popleft().offset
                book.finished.discard(offset)
                book.next_offset = offset + 1
            return True

    def committable(self, partitions: Collection[Partition] | None = None) -> dict[Partition, int]:
        """Offsets to commit, partition by partition, where they have moved since the last commit."""
        with self._lock:
            return {
                key: book.next_offset
                for key, book in self._partitions.items()
                if (partitions is None or key in partitions)
                and book.next_offset is not None
                and book.next_offset != book.committed
            }

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Note that the broker has acknowledged these offsets."""
        with self._lock:
            for key, offset in offsets.items():
                if key in self._partitions:
                    self._partitions[key].committed = offset

    def forget(self, partitions: Collection[Partition]) -> int:
        """Close the books of partitions that moved away; how many of their records were unfinished."""
        with self._lock:
            return sum(self._close(key) for key in set(partitions) if key in self._partitions)

    def _close(self, key: Partition) -> int:
        book = self._partitions.pop(key)
        open_tokens = [t for t in book.waiting if t.offset not in book.finished]
        self._count -= len(open_tokens)
        self._bytes -= sum(token.size_bytes for token in open_tokens)
        return len(open_tokens)

    def in_flight(self, partitions: Collection[Partition] | None = None) -> int:
        """Records taken and not yet published."""
        with self._lock:
            if partitions is None:
                return self._count
            books = (self._partitions[key] for key in partitions if key in self._partitions)
            return sum(len(book.waiting) - len(book.finished) for book in books)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of the records taken and not yet published."""
        with self._lock:
            return self._bytes
