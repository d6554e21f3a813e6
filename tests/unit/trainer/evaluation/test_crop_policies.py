"""One detector, several ways to crop: what each sees of a picture is what it can rank by."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.manifest import PreprocessSpec
from tests.unit.trainer.evaluation.pictures import flat
from trainer.data.pairs import Pair
from trainer.data.sources import Picture
from trainer.evaluation.crop_policies import best, named, policy_of, ranked
from trainer.evaluation.errors import EvaluationError
from trainer.evaluation.metrics import Bootstrap

BOOTSTRAP = Bootstrap(resamples=50, seed=0)
CENTER, FIVE = policy_of("center:16"), policy_of("five_crop:16")


def brightness(image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    mean_N: NDArray[np.float32] = image_NHWC.mean(axis=(1, 2, 3), dtype=np.float32)
    return mean_N


def with_corner(label: int, level: int) -> Picture:
    """A picture of 48 px whose upper left corner alone says what it is."""
    picture = flat(label, "x" if label else "r", 100, f"{label}-{level}.png", size_px=48)
    picture.pixels_HWC[:12, :12] = level
    return picture


PICTURES = [with_corner(0, level) for level in (90, 100)] + [
    with_corner(1, 130),
    with_corner(1, 140),
]


@pytest.mark.parametrize("text", ["center:224", "grid:96:4", "five_crop:96"])
def test_a_policy_is_named_as_it_is_asked_for(text: str) -> None:
    assert named(policy_of(text)) == text


def test_a_policy_that_takes_a_certain_number_needs_none() -> None:
    assert policy_of("five_crop:96") == policy_of("five_crop:96:5")
    assert policy_of("five_crop:96").max_crops == 5
    assert policy_of("grid:64:9") == PreprocessSpec(
        version="1", crop_policy="grid", crop_px=64, max_crops=9
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("grid:96", "max_crops: Input should be a valid integer"),
        ("grid:96:65", "less than or equal to 64"),
        ("grid:0:4", "greater than 0"),
        ("five_crop:96:4", "takes 5"),
        ("centre:224", "'center', 'grid' or 'five_crop'"),
        ("", "crop_px: Input should be a valid integer"),
    ],
)
def test_what_is_no_policy_is_refused_with_the_ways_to_write_one(text: str, why: str) -> None:
    with pytest.raises(
        EvaluationError, match=r"is no way to crop .*center:224, grid:96:4"
    ) as error:
        policy_of(text)
    assert why in str(error.value)


def test_a_policy_that_looks_where_the_trace_is_ranks_better_than_the_first() -> None:
    """The centre shows nothing; the corners do. Aligned, a picture is one the crops cover."""
    first, second = ranked(brightness, PICTURES, [], [CENTER, FIVE], BOOTSTRAP)
    assert first.auc["native"].value == 0.5
    assert second.auc["native"].value == 1.0
    assert second.less_first["native"].value == 0.5
    assert first.less_first["native"].value == first.less_first["native"].high == 0
    assert (first.aligned_px, second.aligned_px) == (16, 32)
    assert first.auc["aligned"].value == 1.0  # the whole picture, shrunk to the crop
    assert first.pairs is None
    assert first.figure == pytest.approx(0.75)
    assert second.figure == pytest.approx(1.0)


def test_pairs_count_as_much_as_the_families_do() -> None:
    """A regeneration that the corners give away."""
    real, fake = PICTURES[0].pixels_HWC, PICTURES[-1].pixels_HWC
    pairs = [Pair("real/r/1.png", real, fake, "span")]
    first, second = ranked(brightness, PICTURES, pairs, [CENTER, FIVE], BOOTSTRAP)
    assert (first.pairs, second.pairs) == (0.5, 1.0)
    assert first.figure == pytest.approx((0.5 + 1.0 + 0.5) / 3)


def test_what_takes_too_long_is_never_the_best() -> None:
    """However well it ranks; of equals the one that is configured stays."""
    first, second = ranked(brightness, PICTURES, [], [CENTER, FIVE], BOOTSTRAP)
    assert best([first, second], [True, True]) is second
    assert best([first, second], [True, False]) is first
    assert best([first, first], [True, True]) is first
    assert best([first, second], [False, False]) is None
