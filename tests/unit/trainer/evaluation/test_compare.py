"""Detectors and ways to crop are ranked side by side, each beside the first."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.bundle.manifest import PreprocessSpec
from tests.unit.trainer.evaluation.pictures import flat
from trainer.data.dataset import Picture
from trainer.data.pairs import Pair
from trainer.evaluation.compare import (
    CAUGHT,
    FLAGGED,
    Alternative,
    ComparisonData,
    ComparisonRow,
    best_row,
    certainty,
    compare,
    crops_name,
    parse_crops,
)
from trainer.evaluation.metrics import Bootstrap, Estimate
from trainer.evaluation.scoring import EvaluationError, Infer

BOOTSTRAP = Bootstrap(resamples=50, seed=0)


CENTER, FIVE = parse_crops("center:16"), parse_crops("five_crop:16")


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


def by_policy(pairs: list[Pair]) -> list[ComparisonRow]:
    """One detector, two ways to crop."""
    candidates = [Alternative(crops_name(one), brightness, one) for one in (CENTER, FIVE)]
    return list(compare(candidates, ComparisonData(PICTURES, pairs), BOOTSTRAP))


def test_a_policy_that_looks_where_the_trace_is_ranks_better_than_the_first() -> None:
    """The centre shows nothing; the corners do. Aligned, a picture is one the crops cover."""
    first, second = by_policy([])
    assert first.auc["native"].value == 0.5
    assert second.auc["native"].value == 1.0
    assert second.less_first["native"].value == 0.5
    assert first.less_first["native"].value == first.less_first["native"].high == 0
    assert (first.aligned_px, second.aligned_px) == (16, 32)
    assert first.auc["aligned"].value == 1.0  # the whole picture, shrunk to the crop
    assert set(first.auc) == {"native", "aligned"}
    assert first.figure == pytest.approx(0.75)
    assert second.figure == pytest.approx(1.0)


def test_pairs_count_as_much_as_the_families_do() -> None:
    """A regeneration that the corners give away, after a JPEG too."""
    real, fake = PICTURES[0].pixels_HWC, PICTURES[-1].pixels_HWC
    first, second = by_policy([Pair("real/r/1.png", real, fake, "span")])
    for name in ("pairs, native", "pairs, jpeg90"):
        assert (first.auc[name].value, second.auc[name].value) == (0.5, 1.0)
        assert second.less_first[name] == Estimate(0.5, 0.5, 0.5)
    assert first.figure == pytest.approx((0.5 + 1.0 + 0.5 + 0.5) / 4)


def test_what_takes_too_long_is_never_the_best() -> None:
    """However well it ranks; of equals the first stays."""
    first, second = by_policy([])
    assert best_row([first, second], [True, True]) is second
    assert best_row([first, second], [True, False]) is first
    assert best_row([first, first], [True, True]) is first
    assert best_row([first, second], [False, False]) is None


def test_a_detector_that_is_blind_ranks_below_one_that_sees() -> None:
    """Two detectors by one way to crop; each is asked about the same crops."""

    def blind(image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros(len(image_NHWC), dtype=np.float32)

    found = two(brightness, blind, PICTURES)
    assert [one.name for one in found] == ["first", "second"]
    assert found[1].less_first["native"].value == pytest.approx(-0.5)
    assert found[1].less_first["native"].high < 0
    assert best_row(found, [True, True]) is found[0]


def test_a_difference_that_the_pictures_cannot_tell_is_called_so() -> None:
    """What turns all of them round is certain; what a single picture makes is not."""
    corners = [with_corner(0, level) for level in range(60, 120, 2)]
    corners += [with_corner(1, level) for level in range(91, 151, 2)]

    def inverted(image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        return -brightness(image_NHWC)

    def nearly(image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As brightness, but for the brightest real picture, which it takes for dark."""
        mean_N = brightness(image_NHWC)
        top = max(brightness(one.pixels_HWC[None])[0] for one in corners if not one.source.label)
        return np.where(np.isclose(mean_N, top), mean_N - 20, mean_N)

    _, second = two(inverted, brightness, corners)
    assert "native" in certainty(second)
    assert certainty(second).endswith("the interval of the difference leaves out zero")
    _, second = two(brightness, nearly, corners, crop="center:48")
    assert second.less_first["native"].value > 0
    assert certainty(second) == "but these pictures cannot tell it from the first"


def test_how_many_are_caught_at_1_percent_takes_a_hundred_reals() -> None:
    """Of fewer, not one may be flagged, and the figure would be of that one."""
    few = [with_corner(0, level) for level in range(20, 119)]
    many = [*few, with_corner(0, 19)]
    fakes = [with_corner(1, 117), with_corner(1, 200)]
    (one,) = compare(
        [Alternative("few", brightness, FIVE)], ComparisonData([*few, *fakes]), BOOTSTRAP
    )
    assert CAUGHT not in one.more
    (one,) = compare(
        [Alternative("many", brightness, FIVE)], ComparisonData([*many, *fakes]), BOOTSTRAP
    )
    assert one.more[CAUGHT].value == 0.5  # two real pictures are no darker than the other


def test_pictures_of_other_kinds_are_ranked_nowhere_and_flagged_beside_the_photographs() -> None:
    """Two detectors rank alike; to one a drawing is dark. The brightest photograph may be flagged."""
    photographs = [flat(0, "r", level, f"{level}.png", size_px=48) for level in range(60, 100, 2)]
    pictures = [*photographs, flat(1, "x", 110, size_px=48)]
    drawn = [flat(0, "drawn", level, f"{level}.png", size_px=48) for level in (50, 97)]

    def calm(image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        mean_N = brightness(image_NHWC)
        return np.where(mean_N == 97, 0, mean_N)  # between the brightest photograph and the next

    spec = parse_crops("center:16")
    candidates = [Alternative("first", brightness, spec), Alternative("calm", calm, spec)]
    first, second = compare(candidates, ComparisonData(pictures, out_of_domain=drawn), BOOTSTRAP)
    assert first.auc == second.auc
    assert first.more[f"{FLAGGED} 5 %"].value == 0.5
    assert second.more[f"{FLAGGED} 5 %"].value == 0.0
    assert second.less_first[f"{FLAGGED} 5 %"].value == -0.5
    assert set(first.more) == {f"{FLAGGED} 5 %"}  # twenty photographs are too few for 1 %
    (alone,) = compare(candidates[:1], ComparisonData(pictures), BOOTSTRAP)
    assert alone.auc == first.auc
    assert alone.more == {}


def two(
    first: Infer, second: Infer, pictures: list[Picture], crop: str = "five_crop:16"
) -> list[ComparisonRow]:
    """Two detectors by one way to crop."""
    spec = parse_crops(crop)
    candidates = [Alternative("first", first, spec), Alternative("second", second, spec)]
    return list(compare(candidates, ComparisonData(pictures), BOOTSTRAP))


@pytest.mark.parametrize("text", ["center:224", "grid:96:4", "five_crop:96"])
def test_a_policy_is_named_as_it_is_asked_for(text: str) -> None:
    assert crops_name(parse_crops(text)) == text


def test_a_policy_that_takes_a_certain_number_needs_none() -> None:
    assert parse_crops("five_crop:96") == parse_crops("five_crop:96:5")
    assert parse_crops("five_crop:96").max_crops == 5
    assert parse_crops("grid:64:9") == PreprocessSpec(
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
    with pytest.raises(EvaluationError, match=r"unknown crops .*center:224, grid:96:4") as error:
        parse_crops(text)
    assert why in str(error.value)
