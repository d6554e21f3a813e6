"""Batch: single images in, batches out; a batch closes by size or by age, whichever comes first.

The decision is :class:`Batcher`, pure and fed with times; :func:`batches` runs it over a queue.
"""

import queue
from collections.abc import Iterator
from typing import Generic, TypeVar

from worker.work import Clock

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
    source: "queue.SimpleQueue[Item | None]", batcher: Batcher[Item], clock: Clock
) -> Iterator[list[Item]]:
    """Batches of what arrives on ``source``, until it yields None; then the rest, and the end."""
    while True:
        try:
            item = source.get(timeout=batcher.wait_s(clock()))
        except queue.Empty:
            closed = batcher.due(clock())
        else:
            if item is None:
                break
            closed = batcher.add(item, clock()) or batcher.due(clock())
        if closed:
            yield closed
    if rest := batcher.take():
        yield rest
