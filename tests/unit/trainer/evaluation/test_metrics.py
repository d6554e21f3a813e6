"""Figures are those of scikit-learn, resampled at once; families share the real images and count the same."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    roc_auc_score,
    roc_curve,
)

from tests.unit.trainer.evaluation.pictures import scored
from trainer.evaluation.metrics import (
    FIGURES,
    Bootstrap,
    Sampled,
    family_results,
    family_samples,
    family_table,
    figures,
    once,
    seen_by,
    split_result,
)
from trainer.evaluation.scoring import EvaluationError, Logits, ScoredPictures

# Few levels: ties are what a cumulated sum gets wrong first.
LEVELS = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


def as_logits(values: Sequence[float]) -> Logits:
    return np.array(values, dtype=np.float32)


@given(LEVELS, LEVELS)
def test_one_sample_agrees_with_scikit_learn(real: list[int], fake: list[int]) -> None:
    """AUC, AP, balanced accuracy and the rate at a false-positive rate, ties included."""
    real_N, fake_M = as_logits(real), as_logits(fake)
    found = figures(real_N, fake_M, once(len(real)), once(len(fake)))
    label = np.array([0] * len(real) + [1] * len(fake))
    value = np.concatenate([real_N, fake_M])
    assert found["auc"][0] == pytest.approx(roc_auc_score(label, value))
    assert found["ap"][0] == pytest.approx(average_precision_score(label, value))
    balanced = balanced_accuracy_score(label, value >= 0)
    assert found["balanced_accuracy"][0] == pytest.approx(balanced)
    assert found["accuracy"][0] == pytest.approx(np.mean((value >= 0) == label))
    fpr, tpr, _ = roc_curve(label, value, drop_intermediate=False)
    assert found["tpr_at_fpr_5"][0] == pytest.approx(tpr[fpr <= 0.05].max())


@given(LEVELS, LEVELS, st.integers(0, 99))
def test_a_resample_is_the_sample_with_its_images_repeated(
    real: list[int], fake: list[int], seed: int
) -> None:
    """Counting an image twice gives the figures of a set that holds it twice."""
    real_N, fake_M = as_logits(real), as_logits(fake)
    bootstrap = Bootstrap(3, seed)
    real_count, fake_count = bootstrap.counts(len(real), 0), bootstrap.counts(len(fake), 1)
    found = figures(real_N, fake_M, real_count, fake_count)
    for row in range(3):
        real_again = np.repeat(real_N, real_count[row])
        fake_again = np.repeat(fake_M, fake_count[row])
        single = figures(real_again, fake_again, once(len(real)), once(len(fake)))
        for name in FIGURES:
            assert found[name][row] == pytest.approx(single[name][0]), name


def test_the_equal_error_rate_of_overlapping_classes() -> None:
    """One of four of either class on the wrong side: a quarter."""
    real, fake = as_logits([-3, -2, -1, 1.5]), as_logits([-1.5, 1, 2, 3])
    assert figures(real, fake, once(4), once(4))["eer"][0] == pytest.approx(0.25)


def test_under_a_hundred_reals_one_percent_allows_no_false_positive() -> None:
    """The rate at 1 % is then of the fakes above the highest real image."""
    real, fake = as_logits([-1] * 19 + [1]), as_logits([0.5, 2])
    found = figures(real, fake, once(20), once(2))
    assert found["tpr_at_fpr_1"][0] == 0.5
    assert found["tpr_at_fpr_5"][0] == 1.0


def test_rows_beyond_one_chunk_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by chunks, which change nothing."""
    random = np.random.default_rng(0)
    real, fake = (random.normal(size=20).astype(np.float32) for _ in range(2))
    counts = [Bootstrap(7, seed).counts(20) for seed in (1, 2)]
    whole = figures(real, fake, *counts)
    monkeypatch.setattr("trainer.evaluation.metrics._CELLS", 80)
    chunked = figures(real, fake, *counts)
    assert all(np.allclose(whole[name], chunked[name], atol=1e-12) for name in FIGURES)


def test_the_interval_covers_the_middle_of_the_resamples() -> None:
    """Of 0 to 1,000, it is 25 to 975."""
    found = Sampled(500, np.arange(1001, dtype=np.float64)).estimate()
    assert (found.value, found.low, found.high) == (500, 25, 975)


BOOTSTRAP = Bootstrap(resamples=200, seed=0)


UNSEEN = seen_by(())


def normal(mean: float, count: int, seed: int) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 1, count))


def test_the_mean_is_of_families_that_training_never_saw() -> None:
    """The best family is a known one: it is listed, and left out of the mean."""
    logits = scored({"r": normal(-1, 40, 0)}, {"sd1": [9.0] * 9, "new": normal(1, 30, 1)})
    found = family_table(logits, "native", seen_by(("sd*[:-40]",)), BOOTSTRAP)
    assert found.mean_over == ("new",)
    assert found.mean["auc"].value == found.of("new").figures["auc"].value
    assert found.of("sd1").seen_in_training
    assert found.of("sd1").figures["auc"].value == 1.0


def test_every_family_counts_the_same_and_the_worst_is_named() -> None:
    logits = scored({"r": [0.0]}, {"many": [1.0] * 9, "few": [-1.0]})
    found = family_table(logits, "native", UNSEEN, BOOTSTRAP)
    assert found.mean["auc"].value == 0.5
    assert found.worst == "few"


def test_intervals_hold_the_figure_and_narrow_with_more_images() -> None:
    widths = []
    for count in (20, 500):
        logits = scored({"r": normal(-0.5, count, 0)}, {"x": normal(0.5, count, 1)})
        auc = family_table(logits, "native", UNSEEN, BOOTSTRAP).mean["auc"]
        assert auc.low < auc.value < auc.high
        widths.append(auc.high - auc.low)
    assert widths[1] < widths[0] / 2


def test_a_family_has_the_same_interval_whatever_else_is_evaluated() -> None:
    """Draws hang on the family's name, not on its place in a list."""
    reals, new = {"r": normal(-1, 30, 0)}, normal(0.5, 30, 1)
    alone = family_table(scored(reals, {"new": new}), "native", UNSEEN, BOOTSTRAP)
    among = family_table(scored(reals, {"a": [0.1] * 5, "new": new}), "native", UNSEEN, BOOTSTRAP)
    assert alone.of("new") == among.of("new")


def mean_auc(logits: ScoredPictures) -> Sampled:
    return Sampled.mean([family["auc"] for family in family_samples(logits, BOOTSTRAP).values()])


def test_a_difference_is_of_the_means_and_judged_on_the_same_draws() -> None:
    """What makes an image hard for both goes out: a shift of every fake shows beside a wide AUC."""
    real, fake = normal(0, 60, 0), normal(0.5, 60, 1)
    first = mean_auc(scored({"r": real}, {"x": [one + 0.1 for one in fake], "y": [0.0] * 9}))
    second = mean_auc(scored({"r": real}, {"x": fake, "y": [0.0] * 9}))
    less = (first - second).estimate()
    assert less.value == pytest.approx(first.value - second.value)
    wide = first.estimate()
    assert 0 < less.low < less.high < wide.high - wide.low
    same = (first - first).estimate()
    assert (same.value, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(("reals", "fakes"), [({}, {"x": [1.0]}), ({"r": [1.0]}, {})])
def test_a_split_without_a_class_is_refused(
    reals: dict[str, list[float]], fakes: dict[str, list[float]]
) -> None:
    with pytest.raises(EvaluationError, match="no real or no generated image"):
        family_table(scored(reals, fakes), "native", UNSEEN, BOOTSTRAP)


def test_families_are_judged_apart() -> None:
    """One perfect family, one that is told no better than by chance."""
    results = family_results(
        scored({"r": [-2, -1, 1]}, {"good": [3, 4], "bad": [-1.5, 2]}), "native"
    )
    bad, good = results
    assert (good.generator, good.auc, good.ap) == ("good", 1.0, 1.0)
    assert good.fake_accuracy == 1.0
    assert good.real_accuracy == pytest.approx(2 / 3)
    assert good.accuracy_at_half == pytest.approx(4 / 5)
    assert bad.auc == pytest.approx(4 / 6)
    assert bad.fake_accuracy == 0.5


def test_the_mean_counts_families_and_the_worst_is_named() -> None:
    """A family of many images weighs no more than one of few."""
    results = family_results(scored({"r": [0.0]}, {"many": [1] * 9, "few": [-1]}), "native")
    summary = split_result(results)
    assert summary.mean_auc == {"native": 0.5}
    assert summary.worst_generator == {"native": "few"}


def test_without_real_images_there_is_no_result() -> None:
    """A split of one class says nothing, rather than something wrong."""
    assert family_results(scored({"r": []}, {"x": [1.0]}), "native") == []
    assert split_result([]).mean_auc == {}
