"""Batch: single images in, batches out; a batch closes by size or by age, whichever comes first.

The decision is :class:`Batcher`, pure and fed with times; :func:`batches` runs one for each key over a queue, so
that what must not be mixed (images of two engines) is batched apart, and none waits for the other.
"""

import queue
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from worker.settings import BatchSettings
from worker.work import Clock, Decoded

Item = TypeVar("Item")
IDLE_WAIT_S = 0.5


class Batcher(Generic[Item]):
    """Collects items into batches of at most ``max_items``, none older than ``max_age_s``.

    Args:
        max_items: A batch of this size closes at once.
        max_age_s: A batch whose first item is this old closes, however small.
    """

    def __init__(self, max_items: int, max_age_s: float) -> None:
        self._max_items = max_items
        self._max_age_s = max_age_s
        self._items: list[Item] = []
        self._opened_at_s = 0.0

    def add(self, item: Item, now_s: float) -> list[Item] | None:
        """Add one item; the batch, if that filled it."""
        if not self._items:
            self._opened_at_s = now_s
        self._items.append(item)
        return self.take() if len(self._items) >= self._max_items else None

    def due(self, now_s: float) -> list[Item] | None:
        """The batch, if its first item is old enough."""
        if self._items and now_s - self._opened_at_s >= self._max_age_s:
            return self.take()
        return None

    def wait_s(self, now_s: float) -> float:
        """Seconds until the open batch is due; a fixed idle wait where none is open."""
        if not self._items:
            return IDLE_WAIT_S
        return max(self._max_age_s - (now_s - self._opened_at_s), 0.0)

    def take(self) -> list[Item]:
        """Close the open batch and return it; empty where none is open."""
        items, self._items = self._items, []
        return items


def batches(
    source: "queue.SimpleQueue[Item | None]",
    new_batcher: Callable[[], Batcher[Item]],
    key: Callable[[Item], Hashable],
    clock: Clock,
) -> Iterator[list[Item]]:
    """Batches of what arrives on ``source``, each of one key, until it yields None; then the rest, and the end.

    Args:
        source: Items; None ends them.
        new_batcher: Called for a key that has no open batch.
        key: Items of different keys never share a batch.
        clock: Monotonic seconds.
    """
    open_batches: dict[Hashable, Batcher[Item]] = {}
    while True:
        waits = [batcher.wait_s(clock()) for batcher in open_batches.values()]
        try:
            item = source.get(timeout=min(waits, default=IDLE_WAIT_S))
        except queue.Empty:
            pass
        else:
            if item is None:
                break
            batcher = open_batches.setdefault(key(item), new_batcher())
            if full := batcher.add(item, clock()):
                del open_batches[key(item)]
                yield full
        yield from _due(open_batches, clock())
    yield from (batcher.take() for batcher in open_batches.values())


def _due(open_batches: dict[Hashable, Batcher[Item]], now_s: float) -> Iterator[list[Item]]:
    """The batches that are old enough; their keys, which may never come again, are forgotten."""
    for each, batcher in list(open_batches.items()):
        if closed := batcher.due(now_s):
            del open_batches[each]
            yield closed


def engine_batches(
    decoded: "queue.SimpleQueue[Decoded | None]", settings: BatchSettings, clock: Clock
) -> Iterator[list[Decoded]]:
    """Batches of decoded images, each of one engine, of the size and age that the settings say."""
    size, age_s = settings.max_images, settings.max_age_ms / 1000
    return batches(decoded, lambda: Batcher[Decoded](size, age_s), lambda each: each.engine, clock)
