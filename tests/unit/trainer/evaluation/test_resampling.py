"""Figures of many resamples at once are those that scikit-learn gives for each."""

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

from trainer.evaluation.metrics import FIGURES, Sampled, figures, once, resampled_counts
from trainer.evaluation.scoring import Logits

# Few levels: ties are what a cumulated sum gets wrong first.
LEVELS = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


def logits(values: Sequence[float]) -> Logits:
    return np.array(values, dtype=np.float32)


@given(LEVELS, LEVELS)
def test_one_sample_agrees_with_scikit_learn(real: list[int], fake: list[int]) -> None:
    """AUC, AP, balanced accuracy and the rate at a false-positive rate, ties included."""
    real_N, fake_M = logits(real), logits(fake)
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
    real_N, fake_M = logits(real), logits(fake)
    random = np.random.default_rng(seed)
    real_count = resampled_counts(len(real), 3, random)
    fake_count = resampled_counts(len(fake), 3, random)
    found = figures(real_N, fake_M, real_count, fake_count)
    for row in range(3):
        real_again = np.repeat(real_N, real_count[row])
        fake_again = np.repeat(fake_M, fake_count[row])
        single = figures(real_again, fake_again, once(len(real)), once(len(fake)))
        for name in FIGURES:
            assert found[name][row] == pytest.approx(single[name][0]), name


def test_the_equal_error_rate_of_overlapping_classes() -> None:
    """One of four of either class on the wrong side: a quarter."""
    real, fake = logits([-3, -2, -1, 1.5]), logits([-1.5, 1, 2, 3])
    assert figures(real, fake, once(4), once(4))["eer"][0] == pytest.approx(0.25)


def test_under_a_hundred_reals_one_percent_allows_no_false_positive() -> None:
    """The rate at 1 % is then of the fakes above the highest real image."""
    real, fake = logits([-1] * 19 + [1]), logits([0.5, 2])
    found = figures(real, fake, once(20), once(2))
    assert found["tpr_at_fpr_1"][0] == 0.5
    assert found["tpr_at_fpr_5"][0] == 1.0


def test_rows_beyond_one_chunk_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by chunks, which change nothing."""
    random = np.random.default_rng(0)
    real, fake = (random.normal(size=20).astype(np.float32) for _ in range(2))
    counts = [resampled_counts(20, 7, np.random.default_rng(seed)) for seed in (1, 2)]
    whole = figures(real, fake, *counts)
    monkeypatch.setattr("trainer.evaluation.metrics._CELLS", 80)
    chunked = figures(real, fake, *counts)
    assert all(np.allclose(whole[name], chunked[name], atol=1e-12) for name in FIGURES)


def test_the_interval_covers_the_middle_of_the_resamples() -> None:
    """Of 0 to 1,000, it is 25 to 975."""
    found = Sampled(500, np.arange(1001, dtype=np.float64)).estimate()
    assert (found.value, found.low, found.high) == (500, 25, 975)
