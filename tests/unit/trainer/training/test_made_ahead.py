"""Batches made ahead: the same ones in the same order, however many threads make them."""

import numpy as np
import pytest

from trainer.data.batches import Batch
from trainer.training.loop import made_ahead


def numbered(number: int) -> Batch:
    """A batch that holds its number."""
    return Batch(np.zeros((1, 1, 1, 3), np.uint8), np.array([number], np.float32), None)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("numbers", [[4, 0, 7, 7, 2], []])
def test_batches_come_in_order(numbers: list[int], workers: int) -> None:
    batches = made_ahead(numbered, numbers, workers)
    assert [int(batch.label_N[0]) for batch in batches] == numbers


def test_no_more_is_made_than_the_workers_ahead() -> None:
    """A run that stops early has not drawn the whole epoch."""
    made: list[int] = []

    def make(number: int) -> Batch:
        made.append(number)
        return numbered(number)

    batches = made_ahead(make, range(100), 2)
    next(batches)
    batches.close()
    assert len(made) <= 3


def test_a_batch_that_fails_fails_where_it_is_taken() -> None:
    """Those before it still come."""

    def make(number: int) -> Batch:
        if number == 1:
            raise ValueError(f"batch {number}")
        return numbered(number)

    batches = made_ahead(make, range(5), 2)
    assert next(batches).label_N[0] == 0
    with pytest.raises(ValueError, match="batch 1"):
        next(batches)
