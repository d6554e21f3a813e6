"""Figures of two sets of logits, for one sample or for a thousand resamples of it at once.

In: logits of real and of generated images, and how often each counts in each resample. Out: a
``Figures``, one value a resample. No errors.

scikit-learn gives the same figures, one sample a call: for 1,000 resamples of fifteen families
that is minutes. Here a resample is a row of counts and every figure is read off its cumulated
sums; tests hold each to scikit-learn's. A higher logit means "generated"; ties share a threshold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Counts = NDArray[np.int64]
Values = NDArray[np.float64]

# What is computed at once, [resamples, thresholds]: about 32 MB an array.
_CELLS = 4_000_000
FIGURES = (
    "auc",
    "ap",
    "eer",
    "tpr_at_fpr_1",
    "tpr_at_fpr_5",
    "balanced_accuracy",
    "accuracy",
    "real_accuracy",
    "fake_accuracy",
)


@dataclass(frozen=True)
class Interval:
    """A figure of the whole sample, with the 2.5 and 97.5 percentiles of its resamples."""

    value: float
    low: float
    high: float

    def shown(self, form: str = ".3f") -> str:
        """For a person: the figure and, in brackets, its ends."""
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def resampled_counts(count: int, resamples: int, random: np.random.Generator) -> Counts:
    """How often each of ``count`` images is drawn, with replacement: [resamples, count]."""
    drawn: Counts = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn


def interval(value: float, sample_R: Values) -> Interval:
    """The percentile interval of 95 %."""
    low, high = np.nanpercentile(sample_R, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def figures(
    real_N: Logits, fake_M: Logits, real_count_RN: Counts, fake_count_RM: Counts
) -> dict[str, Values]:
    """Every one of ``FIGURES``, [R] each.

    - ``auc``: the area under the ROC, by trapezoids. ``ap``: the step-wise average precision of
      scikit-learn, which depends on the proportion of the classes.
    - ``eer``: where the ROC, joined by lines, has as many false positives as misses.
    - ``tpr_at_fpr_1``: the most true positives of any threshold whose false positives are at most
      1 %; fewer than 100 real images allow none at all. Nothing is interpolated.
    - the accuracies are of the raw logit 0.

    Args:
        real_N: logits of real images.
        fake_M: logits of generated images.
        real_count_RN: how often each real image counts.
        fake_count_RM: the same of the generated ones.
    """
    step = max(1, _CELLS // (len(real_N) + len(fake_M)))
    parts = [
        _figures(
            real_N, fake_M, real_count_RN[start : start + step], fake_count_RM[start : start + step]
        )
        for start in range(0, len(real_count_RN), step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in FIGURES}


def once(count: int) -> Counts:
    """The counts of the sample itself: every image once, [1, count]."""
    return np.ones((1, count), dtype=np.int64)


def of_the_sample(real_N: Logits, fake_M: Logits) -> dict[str, float]:
    """Every one of ``FIGURES`` of the images themselves."""
    found = figures(real_N, fake_M, once(len(real_N)), once(len(fake_M)))
    return {name: float(values[0]) for name, values in found.items()}


def _figures(
    real_N: Logits, fake_M: Logits, real_count_RN: Counts, fake_count_RM: Counts
) -> dict[str, Values]:
    # A resample of whole photographs may hold none of a rare family: it then says nothing (nan).
    n_real_R1, n_fake_R1 = (_sizes(one) for one in (real_count_RN, fake_count_RM))
    threshold_K = np.unique(np.concatenate([real_N, fake_M]))[::-1]
    alarm_RK = _reaching(real_N, real_count_RN, threshold_K)
    hit_RK = _reaching(fake_M, fake_count_RM, threshold_K)
    fpr_RK, tpr_RK = _from_zero(alarm_RK / n_real_R1), _from_zero(hit_RK / n_fake_R1)
    n_real_R, n_fake_R = n_real_R1[:, 0], n_fake_R1[:, 0]
    real_right_R = real_count_RN @ (real_N < 0) / n_real_R
    fake_right_R = fake_count_RM @ (fake_M >= 0) / n_fake_R
    right_R = real_right_R * n_real_R + fake_right_R * n_fake_R
    return {
        "auc": np.trapezoid(tpr_RK, fpr_RK, axis=1),
        "ap": (np.diff(tpr_RK) * hit_RK / np.maximum(1, hit_RK + alarm_RK)).sum(axis=1),
        "eer": _equal_error_rate(fpr_RK, tpr_RK),
        "tpr_at_fpr_1": _tpr_at(fpr_RK, tpr_RK, 0.01),
        "tpr_at_fpr_5": _tpr_at(fpr_RK, tpr_RK, 0.05),
        "balanced_accuracy": (real_right_R + fake_right_R) / 2,
        "accuracy": right_R / (n_real_R + n_fake_R),
        "real_accuracy": real_right_R,
        "fake_accuracy": fake_right_R,
    }


def _sizes(count_RN: Counts) -> Values:
    size_R1 = count_RN.sum(axis=1, keepdims=True).astype(np.float64)
    return np.where(size_R1 == 0, np.nan, size_R1)


def _reaching(logit_N: Logits, count_RN: Counts, threshold_K: Logits) -> Counts:
    """How many images reach each threshold, [R, K]."""
    order = np.argsort(-logit_N)
    cumulated = np.cumsum(count_RN[:, order], axis=1)
    cumulated = np.concatenate([np.zeros((len(count_RN), 1), np.int64), cumulated], axis=1)
    reaching_K = np.searchsorted(-logit_N[order], -threshold_K, side="right")
    found: Counts = cumulated[:, reaching_K]
    return found


def _from_zero(rate_RK: Values) -> Values:
    return np.concatenate([np.zeros((len(rate_RK), 1)), rate_RK], axis=1)


def _equal_error_rate(fpr_RK: Values, tpr_RK: Values) -> Values:
    surplus_RK = fpr_RK - (1 - tpr_RK)  # from -1, never falling, to 1
    after_R1 = np.argmax(surplus_RK >= 0, axis=1)[:, None]

    def taken(values_RK: Values, index_R1: NDArray[np.int64]) -> Values:
        return np.take_along_axis(values_RK, index_R1, axis=1)[:, 0]

    high, low = taken(surplus_RK, after_R1), taken(surplus_RK, after_R1 - 1)
    start, end = taken(fpr_RK, after_R1 - 1), taken(fpr_RK, after_R1)
    crossing: Values = start + (end - start) * (-low / (high - low))
    return crossing


def _tpr_at(fpr_RK: Values, tpr_RK: Values, most: float) -> Values:
    highest: Values = np.where(fpr_RK <= most, tpr_RK, 0.0).max(axis=1)
    return highest
