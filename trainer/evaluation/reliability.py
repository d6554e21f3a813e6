"""Whether a score means what it says, on images that calibration never saw.

In: the logits of a split and what is shipped. Out: ``Reliability``. No errors.

Either class weighs one half, as in the fit (``trainer.evaluation.calibration``): a score of 0.8
then promises that, had both classes been equally many, four of five such images were generated.
"""

from dataclasses import dataclass

import numpy as np

from trainer.evaluation.calibration import expected_calibration_error
from trainer.evaluation.families import Scored
from trainer.evaluation.shipped import Shipped

_BINS = 10
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Bin:
    """Images of similar score: the weighted mean score and share of generated images."""

    mean_score: float
    fake_share: float
    n_real: int
    n_fake: int


@dataclass(frozen=True)
class Reliability:
    """The bins that hold an image, and two figures of the whole."""

    bins: tuple[Bin, ...]
    ece: float  # expected calibration error, ten bins of equal width
    nll: float  # negative log-likelihood, natural logarithm
    n: int


def reliability(scored: Scored, shipped: Shipped) -> Reliability:
    """Measure the shipped calibration."""
    real_N, fake_M = shipped.score(scored.of(0)), shipped.score(scored.of(1))
    score = np.concatenate([real_N, fake_M])
    label = np.concatenate([np.zeros(len(real_N)), np.ones(len(fake_M))])
    weight = np.where(label == 0, 0.5 / max(1, len(real_N)), 0.5 / max(1, len(fake_M)))
    index = np.minimum((score * _BINS).astype(int), _BINS - 1)
    bins = []
    for one in range(_BINS):
        inside = index == one
        if inside.any():
            mean_score = float(np.average(score[inside], weights=weight[inside]))
            share = float(np.average(label[inside], weights=weight[inside]))
            fakes = int(label[inside].sum())
            bins.append(Bin(mean_score, share, int(inside.sum()) - fakes, fakes))
    likelihood = np.where(label == 1, score, 1 - score)
    nll = -float((weight * np.log(np.maximum(likelihood, _SMALLEST))).sum())
    return Reliability(
        tuple(bins), expected_calibration_error(score, label, weight), nll, len(score)
    )
