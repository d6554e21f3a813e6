"""A photograph and its regeneration are compared with each other, by photograph."""

import numpy as np
import pytest

from tests.unit.trainer.evaluation.pictures import SPEC
from trainer.data.pairs import Pair
from trainer.evaluation.metrics import (
    Bootstrap,
    PairTable,
    Seen,
    SplitResult,
    mean_pair_samples,
    pair_table,
    score_pairs,
    seen_by,
    with_pairs,
)
from trainer.evaluation.scoring import Infer

BOOTSTRAP = Bootstrap(resamples=100, seed=0)


def region(level: int) -> np.ndarray:
    return np.full((40, 40, 3), level, dtype=np.uint8)


def pairs(family: str, brighter: int) -> list[Pair]:
    """Photographs of every brightness; a regeneration is a little brighter, or darker."""
    return [
        Pair(f"real/a/{level}.png", region(level), region(level + brighter), family)
        for level in range(20, 220, 10)
    ]


def brightness(image_NHWC: np.ndarray) -> np.ndarray:
    mean_N: np.ndarray = image_NHWC.mean(axis=(1, 2, 3)).astype(np.float32)
    return mean_N


def compared(infer: Infer, chosen: list[Pair], condition: str, seen: Seen) -> PairTable:
    """The pairs, scored and compared."""
    return pair_table(score_pairs(infer, chosen, SPEC, condition), condition, seen, BOOTSTRAP)


def test_a_pair_is_ranked_where_the_classes_overlap() -> None:
    """Brightness varies far more than the trace: chance as AUC, certain within each pair."""
    found = compared(brightness, pairs("span", 1), "native", seen_by(()))
    (family,) = found.families
    assert family.ranked_right.value == 1.0
    assert 0.5 < family.auc.value < 0.6
    assert family.n == 20
    assert family.auc.low < family.auc.value < family.auc.high


def test_a_tie_is_half_right() -> None:
    found = compared(brightness, pairs("span", 0), "native", seen_by(()))
    assert found.families[0].ranked_right.value == 0.5
    assert found.families[0].auc.value == pytest.approx(0.5)


def test_the_mean_leaves_out_regenerators_of_the_training() -> None:
    both = pairs("taef2", 5) + pairs("span", -5)
    found = compared(brightness, both, "native", seen_by(("taef*",)))
    assert found.mean_over == ("span",)
    assert found.mean_auc.value < 0.5
    assert [one.seen_in_training for one in found.families] == [False, True]


def test_the_mean_without_an_interval_is_that_of_the_table() -> None:
    """Over all families, whatever training saw of them."""
    both = pairs("taef2", 5) + pairs("span", -5)
    table = compared(brightness, both, "native", seen_by(()))
    expected = np.mean([one.auc.value for one in table.families])
    result = with_pairs(SplitResult((), {}, {}, {}), brightness, both, SPEC)
    assert result.mean_auc["pairs, native"] == pytest.approx(expected)


def test_both_of_a_pair_are_saved_again() -> None:
    """After a JPEG, the detector sees other pixels of photograph and regeneration alike."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    seen: list[np.ndarray] = []

    def infer(image_NHWC: np.ndarray) -> np.ndarray:
        seen.append(image_NHWC[0])
        return np.zeros(len(image_NHWC), dtype=np.float32)

    pair = Pair("real/a/1.png", noise, 255 - noise, "span")
    compared(infer, [pair], "native", seen_by(()))
    compared(infer, [pair], "jpeg90", seen_by(()))
    assert len(seen) == 4
    assert (seen[0] != seen[2]).any()
    assert (seen[1] != seen[3]).any()


def test_a_family_with_fewer_photographs_keeps_its_interval() -> None:
    """Resamples that hold none of its photographs say nothing, and break nothing."""
    few = pairs("span", 1) + pairs("srgan", 1)[:1]
    found = compared(brightness, few, "native", seen_by(()))
    srgan = found.families[1]
    assert (srgan.family, srgan.n) == ("srgan", 1)
    assert np.isfinite([srgan.auc.low, srgan.auc.high, found.mean_auc.low]).all()


def test_the_mean_of_scored_pairs_is_that_of_the_table_with_its_interval() -> None:
    """The table's, where training saw none of the families."""
    both = pairs("taef2", 5) + pairs("span", -5)
    table = compared(brightness, both, "native", seen_by(()))
    scored = score_pairs(brightness, both, SPEC, "native")
    assert [one.family for one in scored] == ["span", "taef2"]
    assert mean_pair_samples(scored, BOOTSTRAP).estimate() == table.mean_auc


def test_two_detectors_are_judged_on_the_same_draws_of_photographs() -> None:
    """What a draw does to both cancels out: of one and the same, nothing is left."""
    both = pairs("taef2", 5) + pairs("span", 9)
    one = mean_pair_samples(score_pairs(brightness, both, SPEC, "native"), BOOTSTRAP)
    same = (one - one).estimate()
    assert (same.value, same.low, same.high) == (0, 0, 0)
    inverted = score_pairs(lambda image_NHWC: -brightness(image_NHWC), both, SPEC, "native")
    other = mean_pair_samples(inverted, BOOTSTRAP)
    less = (other - one).estimate()
    assert less.value == pytest.approx(other.value - one.value)
    assert less.low < less.value < less.high < 0
