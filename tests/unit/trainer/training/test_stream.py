"""Batches made ahead: the same ones in the same order, however many threads make them."""

import threading

import numpy as np
import pytest

from trainer.data.batches import Batch
from trainer.training.stream import made_ahead


class Numbered:
    """A source whose batch is its number."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked: list[int] = []
        self._fails_at, self._lock = fails_at, threading.Lock()

    def at(self, step: int) -> Batch:
        """The batch of one number."""
        with self._lock:
            self.asked.append(step)
        if step == self._fails_at:
            raise ValueError(f"batch {step}")
        return Batch(np.zeros((1, 1, 1, 3), np.uint8), np.array([step], np.float32), None)


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_come_in_order(workers: int) -> None:
    """One thread or several."""
    found = [int(one.label_N[0]) for one in made_ahead(Numbered(), [4, 0, 7, 7, 2], workers)]
    assert found == [4, 0, 7, 7, 2]


def test_no_more_is_made_than_the_workers_ahead() -> None:
    """A run that stops early has not drawn the whole epoch."""
    source = Numbered()
    stream = made_ahead(source, range(100), 2)
    next(stream)
    stream.close()
    assert len(source.asked) <= 3


def test_a_batch_that_fails_fails_where_it_is_taken() -> None:
    """Those before it still come."""
    stream = made_ahead(Numbered(fails_at=1), range(5), 2)
    assert next(stream).label_N[0] == 0
    with pytest.raises(ValueError, match="batch 1"):
        next(stream)


def test_nothing_wanted_is_nothing_made() -> None:
    """A resumed run that was at its end."""
    assert list(made_ahead(Numbered(), [], 2)) == []
