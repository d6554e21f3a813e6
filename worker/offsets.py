"""Offsets: which may be committed. A commit is always the last step of an event.

An offset may be committed once its record and every record received before it in its partition have been published.
Within one assignment offsets only grow: where they jump back, the topic was recreated or the position reset, and a
new assignment begins. The tracker is shared by the polling thread (receives, commits), the publish thread
(acknowledges) and the rebalance callback, hence the lock.
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
    last_offset: int = -1  # the last one received
    finished: set[int] = field(default_factory=set)
    next_offset: int | None = None  # first offset after the contiguous finished prefix
    committed: int | None = None


class OffsetTracker:
    """Tracks the records of the partitions that this worker owns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._partitions: dict[Partition, PartitionOffsets] = {}
        self._epochs = 0
        self._count = 0
        self._bytes = 0

    def receive(self, record: Record) -> AckToken:
        """Track a record; its token acknowledges it later."""
        with self._lock:
            key = (record.topic, record.partition)
            tracked = self._partitions.get(key)
            if tracked is not None and record.offset <= tracked.last_offset:
                self._close(key)
                tracked = None
            if tracked is None:
                self._epochs += 1
                tracked = self._partitions[key] = PartitionOffsets(self._epochs)
            token = AckToken(*key, record.offset, tracked.epoch, record.size_bytes)
            tracked.waiting.append(token)
            tracked.last_offset = record.offset
            self._count += 1
            self._bytes += token.size_bytes
            return token

    def acknowledge(self, token: AckToken) -> bool:
        """Mark a record as published; False if its partition has moved away meanwhile.

        Doing so again changes nothing.
        """
        with self._lock:
            tracked = self._partitions.get((token.topic, token.partition))
            if tracked is None or tracked.epoch != token.epoch:
                return False
            first_open = tracked.waiting[0].offset if tracked.waiting else token.offset + 1
            if token.offset < first_open or token.offset in tracked.finished:
                return True
            tracked.finished.add(token.offset)
            self._count -= 1
            self._bytes -= token.size_bytes
            while tracked.waiting and tracked.waiting[0].offset in tracked.finished:
                offset = tracked.waiting.popleft().offset
                tracked.finished.discard(offset)
                tracked.next_offset = offset + 1
            return True

    def committable(self, partitions: Collection[Partition] | None = None) -> dict[Partition, int]:
        """Offsets to commit, partition by partition, where they have moved since the last commit."""
        with self._lock:
            return {
                key: tracked.next_offset
                for key, tracked in self._partitions.items()
                if (partitions is None or key in partitions)
                and tracked.next_offset is not None
                and tracked.next_offset != tracked.committed
            }

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """The broker has accepted the commit of these offsets."""
        with self._lock:
            for key, offset in offsets.items():
                if key in self._partitions:
                    self._partitions[key].committed = offset

    def forget(self, partitions: Collection[Partition]) -> int:
        """Stop tracking partitions that moved away; returns how many of their records were unfinished."""
        with self._lock:
            return sum(self._close(key) for key in set(partitions) if key in self._partitions)

    def _close(self, key: Partition) -> int:
        tracked = self._partitions.pop(key)
        open_tokens = [t for t in tracked.waiting if t.offset not in tracked.finished]
        self._count -= len(open_tokens)
        self._bytes -= sum(token.size_bytes for token in open_tokens)
        return len(open_tokens)

    def in_flight(self, partitions: Collection[Partition] | None = None) -> int:
        """Records received and not yet published."""
        with self._lock:
            if partitions is None:
                return self._count
            tracked = (self._partitions[key] for key in partitions if key in self._partitions)
            return sum(len(each.waiting) - len(each.finished) for each in tracked)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of the records received and not yet published."""
        with self._lock:
            return self._bytes
