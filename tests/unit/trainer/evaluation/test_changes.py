"""Changes are done to whole pictures, by name, the same way each time."""

import numpy as np
import pytest

from tests.unit.trainer.evaluation.pictures import noisy
from trainer.config import EvaluationConfig, EvaluationPairsConfig
from trainer.errors import ConfigError
from trainer.evaluation.probes import blockiness
from trainer.evaluation.scoring import change_of

PICTURE = noisy(np.random.default_rng(0), 80, 120)


@pytest.mark.parametrize("name", EvaluationConfig().changes)
def test_every_default_change_changes_the_picture_and_repeats(name: str) -> None:
    first, second = change_of(name)(PICTURE), change_of(name)(PICTURE)
    assert first.dtype == np.uint8
    assert (first == second).all()
    assert first.shape != PICTURE.shape or (first != PICTURE).any()


@pytest.mark.parametrize(
    ("name", "height_px", "width_px"),
    [
        ("resize0.5", 40, 60),
        ("resize1.5", 120, 180),
        ("longer60", 40, 60),
        ("jpeg50", 80, 120),
        ("resize0.5+resize0.5", 20, 30),
    ],
)
def test_resizing_keeps_the_aspect(name: str, height_px: int, width_px: int) -> None:
    assert change_of(name)(PICTURE).shape == (height_px, width_px, 3)


def test_a_lower_quality_is_further_from_the_picture() -> None:
    """The order of the curve's points is the order of what is lost."""
    lost = [
        np.abs(change_of(name)(PICTURE).astype(int) - PICTURE).mean()
        for name in ("jpeg95", "jpeg75", "jpeg30")
    ]
    assert lost[0] < lost[1] < lost[2]


def test_a_chain_is_done_in_its_order() -> None:
    first, second = change_of("resize0.5+jpeg50"), change_of("jpeg50+resize0.5")
    assert (first(PICTURE) != second(PICTURE)).any()
    stepwise = change_of("jpeg50")(change_of("resize0.5")(PICTURE))
    assert (first(PICTURE) == stepwise).all()


def test_a_margin_shifts_the_grid_of_an_earlier_jpeg() -> None:
    """Ten per cent of 80 and 160 px would be whole blocks: then the cut is moved off the grid."""
    coded = change_of("jpeg30")(noisy(np.random.default_rng(1), 80, 160))
    cut = change_of("margin0.1")(coded)
    assert blockiness(coded)[0] > 0.1
    assert blockiness(cut)[0] < blockiness(coded)[0] / 2
    assert blockiness(cut)[1] > 0.1  # it is still there, elsewhere


def test_an_unknown_change_is_refused_by_the_configuration() -> None:
    with pytest.raises(ValueError, match="unknown change 'sharpen2'"):
        EvaluationConfig(changes=("jpeg90+sharpen2",))
    assert issubclass(ConfigError, Exception)
    assert EvaluationPairsConfig().roots == ()
