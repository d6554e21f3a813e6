"""The shape of a run: its steps, its draws, its learning rate."""

from pathlib import Path

import pytest

from tests.support.trainer import tiny_config
from trainer.training.loop import Plan, hash_of, learning_rate, plan_of


def test_an_epoch_is_shared_out() -> None:
    """Two processes with two batches to a step do a quarter of the steps each epoch."""
    config = tiny_config(Path("data"), {"batch = 8": "batch = 8\naccumulate = 2"})
    assert plan_of(config, 12, 1) == Plan(steps=18, validate_every=6, accumulate=2, processes=1)
    assert plan_of(config, 12, 2) == Plan(steps=9, validate_every=3, accumulate=2, processes=2)
    assert plan_of(config, 1, 8).validate_every == 1


def test_steps_stand_in_for_epochs() -> None:
    """And validations come as often as is said."""
    config = tiny_config(
        Path("data"), {"epochs = 3": "epochs = 3\nsteps = 50\nvalidate_every_steps = 20"}
    )
    plan = plan_of(config, 12, 1)
    assert (plan.steps, plan.validate_every) == (50, 20)
    assert [done for done in range(1, 51) if plan.validates(done)] == [20, 40, 50]


def test_no_batch_is_drawn_twice() -> None:
    """Every process, part and step has a number of its own, and none is left out."""
    plan = Plan(steps=5, validate_every=5, accumulate=2, processes=3)
    draws = [
        plan.draw(step, part, rank) for step in range(5) for part in (0, 1) for rank in (0, 1, 2)
    ]
    assert sorted(draws) == list(range(30))


def test_the_learning_rate_rises_then_falls() -> None:
    """Two steps of warm-up, the peak, then down to a hundredth."""
    config = tiny_config(Path("data"))
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates[0] == pytest.approx(0.005)
    assert rates[1] == rates[2] == pytest.approx(0.01)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert learning_rate(config, 10, 10) == pytest.approx(0.0001)


def test_batches_have_seeds_of_their_own() -> None:
    """No two of a thousand batches share one."""
    assert len({hash_of(1, draw) for draw in range(1000)}) == 1000
