"""A batch closes by size or by age, whichever comes first, and never loses or reorders an item."""

import queue
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.infer import IDLE_WAIT_S, Batcher, batches


def test_a_batch_closes_when_it_is_full() -> None:
    """The item that fills it closes it, at once."""
    batcher: Batcher[int] = Batcher(3, 10.0)
    assert batcher.add(1, 0.0) is None
    assert batcher.add(2, 0.0) is None
    assert batcher.add(3, 0.0) == [1, 2, 3]
    assert batcher.take() == []


def test_a_batch_closes_when_its_first_item_is_old() -> None:
    """The age is that of the first item; a later one does not prolong it."""
    batcher: Batcher[str] = Batcher(3, 0.5)
    batcher.add("a", 100.0)
    batcher.add("b", 100.4)
    assert batcher.due(100.4) is None
    assert batcher.due(100.5) == ["a", "b"]
    assert batcher.due(200.0) is None, "an empty batch is never due"


def test_the_wait_is_the_time_left() -> None:
    """It ends when the open batch is due and is never negative."""
    batcher: Batcher[int] = Batcher(3, 0.5)
    assert batcher.wait_s(0.0) == IDLE_WAIT_S
    batcher.add(1, 10.0)
    assert batcher.wait_s(10.25) == 0.25
    assert batcher.wait_s(11.0) == 0.0


@given(
    ages=st.lists(st.floats(0, 0.3), max_size=40),
    max_items=st.integers(1, 5),
    max_age_s=st.sampled_from([0.001, 0.1, 1.0]),
)
def test_every_item_is_in_one_batch_in_order(
    ages: list[float], max_items: int, max_age_s: float
) -> None:
    """Batches, one after the other, are the items; none is over-full, none stays open too long."""
    batcher: Batcher[int] = Batcher(max_items, max_age_s)
    now_s, out = 0.0, list[list[int]]()
    for item, pause_s in enumerate(ages):
        now_s += pause_s
        out += [each for each in (batcher.due(now_s), batcher.add(item, now_s)) if each]
        assert batcher.wait_s(now_s) <= max(max_age_s, IDLE_WAIT_S)
    out.append(batcher.take())
    assert [item for batch in out for item in batch] == list(range(len(ages)))
    assert all(len(batch) <= max_items for batch in out)


def _filled(*items: int | None) -> "queue.SimpleQueue[int | None]":
    source: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for item in items:
        source.put(item)
    return source


def same(_item: int) -> int:
    """One key for all."""
    return 0


def test_what_must_not_be_mixed_is_batched_apart() -> None:
    """Items of two kinds that alternate fill two batches, each in order; neither closes the other's."""
    items = _filled(1, 2, 3, 4, 5, 6, 7, None)
    found = list(batches(items, lambda: Batcher(3, 60.0), lambda item: item % 2, clock=lambda: 0.0))
    assert found == [[1, 3, 5], [2, 4, 6], [7]]


def test_the_oldest_open_batch_sets_the_pace() -> None:
    """A kind that nothing comes of any more is given out by its age, while the other goes on."""
    times_s = iter([0.0, 0.0, 0.0, 0.4, 0.4, 0.4, 0.6])
    found = batches(
        _filled(1, 2, 4, 6, 8, None),
        lambda: Batcher(10, 0.5),
        lambda item: item % 2,
        lambda: next(times_s, 0.6),
    )
    assert next(found) == [1]


def test_the_rest_comes_before_the_end() -> None:
    """None ends the stream; what is open then is still a batch."""
    found = list(batches(_filled(1, 2, 3, None, 4), lambda: Batcher(2, 60.0), same, lambda: 0.0))
    assert found == [[1, 2], [3]]
    assert list(batches(_filled(None), lambda: Batcher(2, 60.0), same, lambda: 0.0)) == []


def test_a_busy_queue_does_not_keep_a_batch_open() -> None:
    """Age is looked at after every item, not only when the queue is empty."""
    times_s = iter([0.0, 0.0, 0.0, 0.4, 0.4, 0.4, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8])
    found = batches(_filled(1, 2, 3, None), lambda: Batcher(10, 0.5), same, lambda: next(times_s))
    assert next(found) == [1, 2, 3]


def test_a_lone_item_is_given_out_when_it_is_old() -> None:
    """With nothing else arriving, the wait for the queue ends when the batch is due."""
    clock = iter([0.0, 0.0, 0.0, 0.0, 5.0])
    found = batches(_filled(1), lambda: Batcher(10, 0.001), same, lambda: next(clock, 5.0))
    assert next(found) == [1]


@given(st.lists(st.integers(), max_size=30))
@settings(max_examples=30, deadline=None)
def test_no_item_is_lost_between_threads(items: list[int]) -> None:
    """A producer in another thread, a consumer here."""
    source = _filled()

    def produce() -> None:
        for item in [*items, None]:
            source.put(item)

    thread = threading.Thread(target=produce)
    thread.start()
    found = [
        item
        for batch in batches(source, lambda: Batcher(4, 0.001), same, lambda: 0.0)
        for item in batch
    ]
    thread.join()
    assert found == items
