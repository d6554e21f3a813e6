"""From logits to a score, and from real images to thresholds.

In: logits of the calibration split (real and generated) and of the threshold split (real alone).
Out: ``Fit`` (score = sigmoid(scale * logit + bias), with ECE and NLL) and operating points.
Errors: ``CalibrationError`` where a split is too small for what is asked.

Sources: Platt 1999 with his smoothed targets; Guo et al. 2017 for temperature and ECE; Wilson
1927 for the interval of a rate. Test data decides nothing here.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]  # scipy ships no types

from engines.bundle.manifest import OperatingPoint
from trainer.errors import TrainerError

Logits = NDArray[np.float32]
_ECE_BINS = 10
_RULE_OF_THREE = 3  # no false alarm among n bounds the rate by 3 / n, at 95 %
_Z_95 = 1.959964  # standard normal quantile of a two-sided 95 % interval


class CalibrationError(TrainerError):
    """A split that cannot support what is asked of it; the message says what to do."""


@dataclass(frozen=True)
class Fit:
    """score = sigmoid(scale * logit + bias); ECE and NLL are of the fitted split itself."""

    method: Literal["temperature", "platt"]
    scale: float
    bias: float
    n: int
    ece: float
    nll: float
    ece_before: float
    nll_before: float

    def score(self, logit_N: Logits) -> NDArray[np.float64]:
        """P(generated) of each logit."""
        return sigmoid(self.scale * logit_N.astype(np.float64) + self.bias)


def sigmoid(value_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic function, without overflow."""
    shrunk_N = np.exp(-np.abs(value_N))
    return np.where(value_N >= 0, 1 / (1 + shrunk_N), shrunk_N / (1 + shrunk_N))


def fit(real_N: Logits, fake_N: Logits, method: Literal["temperature", "platt"]) -> Fit:
    """Minimise the balanced negative log-likelihood: either class weighs the same.

    The balance makes a score of 0.5 mean "as likely as not, had both classes been equally many",
    whatever the split's own proportion.
    """
    if min(len(real_N), len(fake_N)) < 2:  # noqa: PLR2004  one image fits anything
        raise CalibrationError(
            "the calibration split needs two real and two generated images at least: "
            "set data.splits.calibration"
        )
    # Platt's targets: a finite sample never shows that a class is certain.
    high = (len(fake_N) + 1) / (len(fake_N) + 2)
    low = 1 / (len(real_N) + 2)

    def cost(parameters: NDArray[np.float64]) -> float:
        scale, bias = math.exp(parameters[0]), parameters[1] if method == "platt" else 0.0
        parts = [
            _soft_nll(scale * real_N.astype(np.float64) + bias, low),
            _soft_nll(scale * fake_N.astype(np.float64) + bias, high),
        ]
        return sum(parts) / 2

    start = np.zeros(2 if method == "platt" else 1)
    found = minimize(cost, start, method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-6})
    scale = math.exp(float(found.x[0]))
    bias = float(found.x[1]) if method == "platt" else 0.0
    before = _quality(real_N, fake_N, 1.0, 0.0)
    after = _quality(real_N, fake_N, scale, bias)
    return Fit(method, scale, bias, len(real_N) + len(fake_N), *after, *before)


def _soft_nll(value_N: NDArray[np.float64], target: float) -> float:
    return float(np.mean(np.logaddexp(0, value_N) - target * value_N))


def _quality(real_N: Logits, fake_N: Logits, scale: float, bias: float) -> tuple[float, float]:
    """(ECE, NLL), each class weighing one half."""
    real, fake = (scale * one.astype(np.float64) + bias for one in (real_N, fake_N))
    nll = (_soft_nll(real, 0.0) + _soft_nll(fake, 1.0)) / 2
    score_N = sigmoid(np.concatenate([real, fake]))
    label_N = np.concatenate([np.zeros(len(real)), np.ones(len(fake))])
    weight_N = np.concatenate(
        [np.full(len(real), 0.5 / len(real)), np.full(len(fake), 0.5 / len(fake))]
    )
    return expected_calibration_error(score_N, label_N, weight_N), nll


def expected_calibration_error(
    score_N: NDArray[np.float64], label_N: NDArray[np.float64], weight_N: NDArray[np.float64]
) -> float:
    """The weighted mean distance, over equal-width bins, of the score from the share of fakes."""
    bin_N = np.minimum((score_N * _ECE_BINS).astype(int), _ECE_BINS - 1)
    total = 0.0
    for index in range(_ECE_BINS):
        inside = bin_N == index
        if inside.any():
            gap = np.average(score_N[inside] - label_N[inside], weights=weight_N[inside])
            total += float(weight_N[inside].sum() * abs(gap))
    return total / float(weight_N.sum())


def operating_point(score_N: NDArray[np.float64], fpr: float, option: str) -> OperatingPoint:
    """The lowest threshold whose share of real images at or above it is at most ``fpr``.

    Args:
        score_N: of real images, in [0, 1].
        fpr: the rate that is asked for.
        option: of the configuration, that asks for it; named in the error.

    Raises:
        CalibrationError: n images cannot support a rate under 3 / n.
    """
    count = len(score_N)
    if count == 0 or fpr < _RULE_OF_THREE / count:
        raise CalibrationError(
            f"{count} real images cannot support a false-positive rate of {fpr} ({option}): add real "
            f"images to data.splits.threshold until there are {math.ceil(_RULE_OF_THREE / fpr)}, or "
            "raise the rate"
        )
    allowed = math.floor(fpr * count)
    ordered = np.sort(score_N)[::-1]
    # Just above the first score that must not count; ties with it are then left out as well.
    threshold = float(np.nextafter(ordered[allowed], 2.0)) if allowed < count else 0.0
    # The score of a worker is computed apart from this one: a margin keeps rounding harmless.
    threshold = min(1.0, threshold + 1e-6)
    alarms = int((score_N >= threshold).sum())
    low, high = wilson_interval(alarms, count)
    return OperatingPoint(
        threshold=threshold, fpr=alarms / count, fpr_ci_low=low, fpr_ci_high=high, n_real=count
    )


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a rate."""
    rate, z2 = successes / count, _Z_95**2
    centre = (rate + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z_95 * math.sqrt(rate * (1 - rate) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)
