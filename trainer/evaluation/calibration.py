"""From logits to scores, from real images to thresholds, and what both do on other images.

The calibration split (real and generated) gives score = sigmoid(scale * logit + bias). The
threshold split (real alone) gives the operating points of every threshold set. ``calibrate.json``
keeps both as a ``CalibrationResult``. Test data decides nothing here: an evaluation judges the
``Deployment``, which is what ships.

Sources: Platt 1999 with his smoothed targets; Guo et al. 2017 for temperature and ECE; Wilson
1927 for the interval of a rate.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from scipy.optimize import minimize  # type: ignore[import-untyped]  # scipy ships no types
from scipy.stats import binomtest  # type: ignore[import-untyped]  # scipy ships no types

from engines.bundle.manifest import OperatingPoint, ThresholdSet
from trainer.config import DEFAULT_SET, ExportConfig, RatesConfig
from trainer.errors import TrainerError
from trainer.evaluation.scoring import Logits, ScoredPictures, matches

Method = Literal["temperature", "platt"]
ALL_SOURCES = "all"  # sources together; the last rate of a threshold, where there are several
_ECE_BINS = 10
_RULE_OF_THREE = 3  # no false alarm among n bounds the rate by 3 / n, at 95 %
_SMALLEST_LIKELIHOOD = 1e-12


class CalibrationError(TrainerError):
    """A split that cannot support the configured calibration; the message says what to do."""


@dataclass(frozen=True)
class Fit:
    """score = sigmoid(scale * logit + bias); ECE and NLL are of the fitted split itself."""

    method: Method
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


def fit(real_N: Logits, fake_N: Logits, method: Method) -> Fit:
    """Minimise the balanced negative log-likelihood: either class weighs the same.

    The balance makes a score of 0.5 mean "as likely as not, had both classes been equally many",
    whatever the split's own proportion.
    """
    if min(len(real_N), len(fake_N)) < 2:  # noqa: PLR2004  a single image fits anything
        raise CalibrationError(
            "the calibration split needs at least two real and two generated images: "
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
    fitted = minimize(cost, start, method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-6})
    scale = math.exp(float(fitted.x[0]))
    bias = float(fitted.x[1]) if method == "platt" else 0.0
    before = _quality(real_N, fake_N, 1.0, 0.0)
    after = _quality(real_N, fake_N, scale, bias)
    return Fit(method, scale, bias, len(real_N) + len(fake_N), *after, *before)


def _soft_nll(value_N: NDArray[np.float64], target: float) -> float:
    return float(np.mean(np.logaddexp(0, value_N) - target * value_N))


def _quality(real_N: Logits, fake_N: Logits, scale: float, bias: float) -> tuple[float, float]:
    """(ECE, NLL), each class weighing one half."""
    real, fake = (scale * logit_N.astype(np.float64) + bias for logit_N in (real_N, fake_N))
    nll = (_soft_nll(real, 0.0) + _soft_nll(fake, 1.0)) / 2
    return expected_calibration_error(*_balanced(sigmoid(real), sigmoid(fake))), nll


def _balanced(
    real_N: NDArray[np.float64], fake_M: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Scores, labels and weights of both classes; the weights of a class sum to one half."""
    label = np.concatenate([np.zeros(len(real_N)), np.ones(len(fake_M))])
    weight = np.concatenate(
        [np.full(len(scores), 0.5 / max(1, len(scores))) for scores in (real_N, fake_M)]
    )
    return np.concatenate([real_N, fake_M]), label, weight


def expected_calibration_error(
    score_N: NDArray[np.float64], label_N: NDArray[np.float64], weight_N: NDArray[np.float64]
) -> float:
    """The weighted mean distance, over equal-width bins, of the score from the share of fakes."""
    total = 0.0
    for inside in _bins(score_N):
        gap = np.average(score_N[inside] - label_N[inside], weights=weight_N[inside])
        total += float(weight_N[inside].sum() * abs(gap))
    return total / float(weight_N.sum())


def _bins(score_N: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    """Masks of the ten bins of equal width that hold a score."""
    bin_N = np.minimum((score_N * _ECE_BINS).astype(int), _ECE_BINS - 1)
    return [bin_N == index for index in range(_ECE_BINS) if (bin_N == index).any()]


def photographs_needed(fpr: float) -> int:
    """How many real images a threshold of this false-positive rate takes (the rule of three)."""
    return math.ceil(_RULE_OF_THREE / fpr - 1e-9)  # 3 / 0.01 must not round to 301


def unsupported_rates(
    n_real: Mapping[str, int], rates: Mapping[str, RatesConfig], out_of_domain: Sequence[str] = ()
) -> list[str]:
    """The rates that the threshold split has too few real images for, a sentence each.

    Args:
        n_real: real images of the threshold split, by folder.
        rates: of every threshold set (``ExportConfig.rates``).
        out_of_domain: patterns of folders that a set which names no folder is not measured on.

    Returns:
        What is missing and what to do, naming the option; empty where ``calibrate`` will succeed.
    """
    problems = []
    for name, wanted in rates.items():
        table = "export" if name == DEFAULT_SET else f"export.threshold_sets.{name}"
        folders = _measured_on(n_real, wanted, out_of_domain)
        count = sum(n_real[folder] for folder in folders)
        if not count:
            why = (
                "its `real` names none of the folders"
                if wanted.real
                else "evaluation.out_of_domain names all"
            )
            problems.append(f"the threshold split holds no real image for {table}: {why}")
            continue
        problems += [
            f"{count} real images cannot support a false-positive rate of {fpr} ({table}.{band}_fpr): "
            f"add real images to data.splits.threshold until there are {photographs_needed(fpr)}, "
            "or raise the rate"
            for band, fpr in (("review", wanted.review_fpr), ("block", wanted.block_fpr))
            if count < photographs_needed(fpr)
        ]
    return problems


def _measured_on(
    folders: Iterable[str], wanted: RatesConfig, out_of_domain: Sequence[str]
) -> list[str]:
    """The folders that a threshold set is measured on."""
    if wanted.real:
        return [folder for folder in folders if matches(folder, wanted.real)]
    return [folder for folder in folders if not matches(folder, out_of_domain)]


def operating_point(score_N: NDArray[np.float64], fpr: float) -> OperatingPoint:
    """The lowest threshold whose share of real images at or above it is at most ``fpr``.

    Args:
        score_N: of real images, in [0, 1]; ``unsupported_rates`` says whether they are enough.
        fpr: the highest false-positive rate.
    """
    count = len(score_N)
    allowed = math.floor(fpr * count)
    ordered = np.sort(score_N)[::-1]
    # Just above the first score that must not count; ties with it are then left out as well.
    threshold = float(np.nextafter(ordered[allowed], 2.0)) if allowed < count else 0.0
    # A worker computes scores with other rounding: a margin keeps the difference harmless.
    threshold = min(1.0, threshold + 1e-6)
    alarms = int((score_N >= threshold).sum())
    low, high = wilson_interval(alarms, count)
    return OperatingPoint(
        threshold=threshold, fpr=alarms / count, fpr_ci_low=low, fpr_ci_high=high, n_real=count
    )


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a rate."""
    low, high = binomtest(successes, count).proportion_ci(method="wilson")
    return float(low), float(high)


@dataclass(frozen=True)
class FalseAlarms:
    """The real images of one folder at or above the thresholds of a set."""

    folder: str
    review: int
    block: int
    n: int


@dataclass(frozen=True)
class MeasuredThresholds:
    """The two thresholds of a set, the configured rates, and false alarms by folder."""

    name: str
    rates: RatesConfig
    review: OperatingPoint
    block: OperatingPoint
    false_alarms: tuple[FalseAlarms, ...]

    @property
    def measured_on(self) -> str:
        """The folders."""
        return ", ".join(f"real/{alarms.folder}" for alarms in self.false_alarms)


@dataclass(frozen=True)
class CalibrationResult:
    """The content of ``calibrate.json``."""

    fit: Fit
    sets: tuple[MeasuredThresholds, ...]  # the default set first
    fitted_on: str  # folders

    def as_json(self) -> dict[str, object]:
        """Plain values, for a file."""
        content: dict[str, object] = _CALIBRATION_FILE.dump_python(self, mode="json")
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, object]) -> "CalibrationResult":
        """Read what ``as_json`` wrote.

        Raises:
            CalibrationError: another release wrote it.
        """
        try:
            return _CALIBRATION_FILE.validate_python(dict(content))
        except ValidationError as error:
            raise CalibrationError(
                "calibrate.json is not of this release: run python -m trainer calibrate again, "
                "and evaluate after it"
            ) from error


_CALIBRATION_FILE = TypeAdapter(CalibrationResult)


def measure_thresholds(
    reals: ScoredPictures,
    fitted: Fit,
    rates: Mapping[str, RatesConfig],
    out_of_domain: Sequence[str] = (),
) -> tuple[MeasuredThresholds, ...]:
    """Every threshold set, in the order given.

    Args:
        reals: the threshold split.
        fitted: logit -> score.
        rates: of each set, and which folders it is measured on.
        out_of_domain: patterns of folders that a set which names no folder is not measured on.

    Raises:
        CalibrationError: the images are too few for a rate, or a set has none.
    """
    score_by_folder = {folder: fitted.score(reals.of(0, folder)) for folder in reals.folders(0)}
    counts = {folder: len(score_N) for folder, score_N in score_by_folder.items()}
    if problems := unsupported_rates(counts, rates, out_of_domain):
        raise CalibrationError("\n".join(problems))
    measured = []
    for name, wanted in rates.items():
        folders = _measured_on(counts, wanted, out_of_domain)
        score_N = np.concatenate([score_by_folder[folder] for folder in folders])
        review = operating_point(score_N, wanted.review_fpr)
        block = operating_point(score_N, wanted.block_fpr)
        alarms = []
        for folder in folders:
            reviewed, blocked = (
                int((score_by_folder[folder] >= band.threshold).sum()) for band in (review, block)
            )
            alarms.append(FalseAlarms(folder, reviewed, blocked, counts[folder]))
        measured.append(MeasuredThresholds(name, wanted, review, block, tuple(alarms)))
    return tuple(measured)


def bundle_stem(export: ExportConfig) -> str:
    """What the ids of a bundle's parts begin with: an id holds no plus, which a version may."""
    return f"{export.name}-{export.version}".replace("+", "-")


def threshold_sets(stem: str, sets: Sequence[MeasuredThresholds]) -> tuple[ThresholdSet, ...]:
    """As the manifest holds them."""
    return tuple(
        ThresholdSet(
            id=f"{stem}-{one.name}", review=one.review, block=one.block, measured_on=one.measured_on
        )
        for one in sets
    )


def points(thresholds: ThresholdSet | MeasuredThresholds) -> dict[str, OperatingPoint]:
    """The operating points of a set, the stricter one last."""
    return {"review": thresholds.review, "block": thresholds.block}


@dataclass(frozen=True)
class Deployment:
    """What ships with a detector: how a logit becomes a score, and the threshold sets.

    score = sigmoid(scale * logit + bias); the default set comes first.
    """

    scale: float
    bias: float
    sets: tuple[ThresholdSet, ...]

    @property
    def default(self) -> ThresholdSet:
        """The set that decides where none is named."""
        return self.sets[0]

    def score(self, logit_N: Logits) -> NDArray[np.float64]:
        """P(generated) of each logit."""
        return sigmoid(self.scale * logit_N.astype(np.float64) + self.bias)


@dataclass(frozen=True)
class ThresholdRate:
    """Images of one source at or above one threshold; the interval is of 95 % (Wilson 1927)."""

    threshold_set: str
    source: str
    threshold: str  # "review" or "block"
    reached: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share."""
        return self.reached / self.n


def threshold_rate(
    source: str, threshold: str, logit_N: Logits, deployed: Deployment, thresholds: ThresholdSet
) -> ThresholdRate:
    """The share of images whose score is at or above a threshold of one of the shipped sets."""
    point = points(thresholds)[threshold]
    reached, count = int((deployed.score(logit_N) >= point.threshold).sum()), len(logit_N)
    interval = wilson_interval(reached, count)
    return ThresholdRate(thresholds.id, source, threshold, reached, count, *interval)


def threshold_rates(
    scored: ScoredPictures, label: int, deployed: Deployment
) -> tuple[ThresholdRate, ...]:
    """Every folder of one class at every threshold of every set, then all of them together."""
    parts = {folder: scored.of(label, folder) for folder in scored.folders(label)}
    if len(parts) > 1:
        parts[ALL_SOURCES] = scored.of(label)
    return tuple(
        threshold_rate(source, threshold, logit_N, deployed, thresholds)
        for thresholds in deployed.sets
        for threshold in points(thresholds)
        for source, logit_N in parts.items()
    )


def by_threshold(rates: Sequence[ThresholdRate], threshold_set: str) -> list[list[ThresholdRate]]:
    """The rates of one set, a list for each of its thresholds; all sources together come last."""
    inside = [rate for rate in rates if rate.threshold_set == threshold_set]
    bands = dict.fromkeys(rate.threshold for rate in inside)
    return [[rate for rate in inside if rate.threshold == band] for band in bands]


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of similar score: the weighted mean score and share of generated images."""

    mean_score: float
    fake_share: float
    n_real: int
    n_fake: int


@dataclass(frozen=True)
class Reliability:
    """Whether a score means what it says: the bins that hold an image, and two figures of all.

    Either class weighs one half, as in the fit: a score of 0.8 then promises that, had both
    classes been equally many, four of five such images were generated.
    """

    bins: tuple[ReliabilityBin, ...]
    ece: float  # expected calibration error, ten bins of equal width
    nll: float  # negative log-likelihood, natural logarithm
    n: int


def reliability(scored: ScoredPictures, deployed: Deployment) -> Reliability:
    """Measure the shipped calibration on images that it was not fitted on."""
    score, label, weight = _balanced(deployed.score(scored.of(0)), deployed.score(scored.of(1)))
    bins = []
    for inside in _bins(score):
        mean_score = float(np.average(score[inside], weights=weight[inside]))
        share = float(np.average(label[inside], weights=weight[inside]))
        fakes = int(label[inside].sum())
        bins.append(ReliabilityBin(mean_score, share, int(inside.sum()) - fakes, fakes))
    likelihood = np.where(label == 1, score, 1 - score)
    nll = -float((weight * np.log(np.maximum(likelihood, _SMALLEST_LIKELIHOOD))).sum())
    return Reliability(
        tuple(bins), expected_calibration_error(score, label, weight), nll, len(score)
    )
