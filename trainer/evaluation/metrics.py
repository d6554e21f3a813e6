"""Figures with bootstrap intervals: of a split by generator, and of photographs against their pairs.

A higher logit means "generated"; ties share a threshold. The bootstrap is stratified: real and
generated images are drawn apart, so that their proportion stays. All families of a resample are
judged beside the same draw of real images. The interval of the mean therefore knows that the
families are not independent.

A resample is a row of counts, and every figure is read off its cumulated sums. scikit-learn gives
the same figures and takes minutes for 1,000 resamples of fifteen families; tests compare the two.

A pair is a photograph and its own regeneration: subject, framing, size and format are the same in both,
so that only the traces of the regenerator can tell them apart. The bootstrap draws *photographs*, each
with all of its regenerations. A photograph that is drawn twice is set against two copies of its own
regeneration, which raises the AUC of a resample a little. The resamples are therefore centred on the
figure itself.
"""

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import crop_image
from trainer.data.dataset import Picture
from trainer.data.pairs import Pair
from trainer.evaluation.scoring import (
    CONDITIONS,
    Condition,
    EvaluationError,
    Infer,
    Logits,
    ScoredPictures,
    change_of,
    matches,
    score,
)

Counts = NDArray[np.int64]
Values = NDArray[np.float64]
Seen = Callable[[str], bool]  # whether training had images of a family

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
class Estimate:
    """A figure of the whole sample, with the 2.5 and 97.5 percentiles of its resamples."""

    value: float
    low: float
    high: float

    def shown(self, form: str = ".3f") -> str:
        """For a person: the figure and, in brackets, its ends."""
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


@dataclass(frozen=True)
class Bootstrap:
    """How many resamples, and the seed of their draws."""

    resamples: int
    seed: int

    def counts(self, count: int, *key: int) -> Counts:
        """How often each of ``count`` images is drawn, with replacement: [resamples, count].

        Args:
            count: images.
            key: tells draws of one seed apart; the same key gives the same draw.
        """
        random = np.random.default_rng((self.seed, *key))
        shares = np.full(count, 1 / count)
        drawn: Counts = random.multinomial(count, shares, size=self.resamples)
        return drawn


@dataclass(frozen=True)
class Sampled:
    """A figure of the whole sample, and of each resample.

    Two figures of the same draws can be subtracted: what makes an image hard for both cancels out.
    """

    value: float
    sample_R: Values  # noqa: N815  the suffix is the tensor's shape

    def __sub__(self, other: "Sampled") -> "Sampled":
        return Sampled(self.value - other.value, self.sample_R - other.sample_R)

    @classmethod
    def mean(cls, each: Sequence["Sampled"]) -> "Sampled":
        """The mean of several figures; a resample that says nothing of one (NaN) leaves it out."""
        sample_R = np.nanmean([one.sample_R for one in each], axis=0)
        return cls(float(np.mean([one.value for one in each])), sample_R)

    def estimate(self) -> Estimate:
        """The figure with its percentile interval of 95 %."""
        low, high = np.nanpercentile(self.sample_R, [2.5, 97.5])
        return Estimate(float(self.value), float(low), float(high))


def sampled_figures(
    real_N: Logits, fake_M: Logits, real_count_RN: Counts, fake_count_RM: Counts
) -> dict[str, Sampled]:
    """Every one of ``FIGURES``, of the images themselves and of the resamples."""
    whole = of_the_sample(real_N, fake_M)
    samples = figures(real_N, fake_M, real_count_RN, fake_count_RM)
    return {figure: Sampled(whole[figure], samples[figure]) for figure in FIGURES}


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
        fake_count_RM: how often each generated image counts.
    """
    step = max(1, _CELLS // (len(real_N) + len(fake_M)))
    parts = [
        _figures(real_N, fake_M, real_count_RN[at : at + step], fake_count_RM[at : at + step])
        for at in range(0, len(real_count_RN), step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in FIGURES}


def once(count: int) -> Counts:
    """The counts of the sample itself: every image once, [1, count]."""
    return np.ones((1, count), dtype=np.int64)


def of_the_sample(real_N: Logits, fake_M: Logits) -> dict[str, float]:
    """Every one of ``FIGURES`` of the images themselves."""
    values = figures(real_N, fake_M, once(len(real_N)), once(len(fake_M)))
    return {name: float(value_1[0]) for name, value_1 in values.items()}


def _figures(
    real_N: Logits, fake_M: Logits, real_count_RN: Counts, fake_count_RM: Counts
) -> dict[str, Values]:
    # A resample of whole photographs may hold none of a rare family: its figures are NaN.
    n_real_R1, n_fake_R1 = (_sizes(count) for count in (real_count_RN, fake_count_RM))
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
        "tpr_at_fpr_1": np.where(fpr_RK <= 0.01, tpr_RK, 0.0).max(axis=1),  # noqa: PLR2004
        "tpr_at_fpr_5": np.where(fpr_RK <= 0.05, tpr_RK, 0.0).max(axis=1),  # noqa: PLR2004
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
    reaching_RK: Counts = cumulated[:, reaching_K]
    return reaching_RK


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


@dataclass(frozen=True)
class FamilyFigures:
    """One generator against all real images, with intervals."""

    family: str
    seen_in_training: bool
    n_fake: int
    figures: dict[str, Estimate]


@dataclass(frozen=True)
class FamilyTable:
    """The families of one condition.

    Attributes:
        condition: "native", "aligned", or a change of the pictures.
        n_real: the real images that every family is judged against.
        families: by name.
        mean: each figure's mean over the families that training never saw (over all of them where
            it saw all); a family counts the same however many images it has.
        mean_over: which families these are.
        worst: of these, the family with the lowest AUC.
    """

    condition: str
    n_real: int
    families: tuple[FamilyFigures, ...]
    mean: dict[str, Estimate]
    mean_over: tuple[str, ...]
    worst: str

    def of(self, family: str) -> FamilyFigures:
        """The figures of one family."""
        return next(row for row in self.families if row.family == family)


def seen_by(selectors: Sequence[str]) -> Seen:
    """Whether a folder is among selectors such as ``sd*`` or ``sd1[:-40]``."""
    patterns = [selector.split("[", 1)[0] for selector in selectors]
    return lambda name: matches(name, patterns)


def family_samples(scored: ScoredPictures, bootstrap: Bootstrap) -> dict[str, dict[str, Sampled]]:
    """Every figure of every family against all real images, by family.

    The draw of real images is the same for every family; a family's own draw does not depend on
    which others there are.

    Raises:
        EvaluationError: a class is missing.
    """
    real_N, families = scored.of(0), scored.folders(1)
    if not len(real_N) or not families:
        raise EvaluationError(
            "the split has no real or no generated image: name folders of both in its "
            "data.splits, or evaluate another --split"
        )
    real_count_RN = bootstrap.counts(len(real_N), 0)
    samples = {}
    for family in families:
        fake_M = scored.of(1, family)
        fake_count_RM = bootstrap.counts(len(fake_M), 1, zlib.crc32(family.encode()))
        samples[family] = sampled_figures(real_N, fake_M, real_count_RN, fake_count_RM)
    return samples


def family_table(
    scored: ScoredPictures, condition: str, seen: Seen, bootstrap: Bootstrap
) -> FamilyTable:
    """Measure every family of a split."""
    samples = family_samples(scored, bootstrap)
    families = tuple(
        FamilyFigures(
            family,
            seen(family),
            len(scored.of(1, family)),
            {name: figure.estimate() for name, figure in sampled.items()},
        )
        for family, sampled in samples.items()
    )
    counted = [row for row in families if not row.seen_in_training] or list(families)
    return FamilyTable(
        condition=condition,
        n_real=len(scored.of(0)),
        families=families,
        mean={
            name: Sampled.mean([samples[row.family][name] for row in counted]).estimate()
            for name in FIGURES
        },
        mean_over=tuple(row.family for row in counted),
        worst=min(counted, key=lambda row: row.figures["auc"].value).family,
    )


@dataclass(frozen=True)
class FamilyResult:
    """One generator against all the real images of the split; a row of evaluate-SPLIT.json."""

    generator: str
    condition: Condition
    n_fake: int
    n_real: int
    auc: float
    ap: float
    accuracy_at_half: float
    real_accuracy: float
    fake_accuracy: float


@dataclass(frozen=True)
class SplitResult:
    """A split's figures without intervals, with the mean over generators and the worst of them."""

    families: tuple[FamilyResult, ...]
    mean_auc: dict[str, float]  # by condition
    worst_auc: dict[str, float]
    worst_generator: dict[str, str]


def family_results(scored: ScoredPictures, condition: Condition) -> list[FamilyResult]:
    """Each generator against all real images; none where a class is missing."""
    real_N = scored.of(0)
    if real_N.size == 0:
        return []
    results = []
    for name in scored.folders(1):
        fake_M = scored.of(1, name)
        value = of_the_sample(real_N, fake_M)
        names = ("auc", "ap", "accuracy", "real_accuracy", "fake_accuracy")
        values = (value[figure] for figure in names)
        results.append(FamilyResult(name, condition, len(fake_M), len(real_N), *values))
    return results


def split_result(results: Sequence[FamilyResult]) -> SplitResult:
    """Sum up: every family counts the same, however many images it has."""
    inside = {name: [row for row in results if row.condition == name] for name in CONDITIONS}
    worst = {name: min(rows, key=lambda row: row.auc) for name, rows in inside.items() if rows}
    return SplitResult(
        families=tuple(results),
        mean_auc={name: float(np.mean([row.auc for row in inside[name]])) for name in worst},
        worst_auc={name: row.auc for name, row in worst.items()},
        worst_generator={name: row.generator for name, row in worst.items()},
    )


def result_from_json(content: Mapping[str, object], path: Path) -> SplitResult:
    """Read a ``SplitResult`` from what evaluate wrote; ``path`` is for the message."""
    families = content.get("families")
    if not isinstance(families, list):
        raise EvaluationError(f"{path} lists no families: run evaluate again")
    return split_result([FamilyResult(**row) for row in families])


def evaluate_split(infer: Infer, pictures: Sequence[Picture], spec: PreprocessSpec) -> SplitResult:
    """Native and aligned results of a split, without intervals."""
    return split_result(
        [
            result
            for condition in CONDITIONS
            for result in family_results(score(infer, pictures, spec, condition), condition)
        ]
    )


NATIVE = "native"
PAIR_CONDITIONS = (NATIVE, "jpeg90")  # as the pairs are stored, and both of each saved once more


@dataclass(frozen=True)
class PairFamily:
    """One regenerator.

    Attributes:
        family: its name.
        seen_in_training: whether training had pairs of it.
        n: pairs.
        auc: of all regenerations against all of their photographs.
        ranked_right: the share of pairs whose regeneration has the higher logit; a tie is half.
    """

    family: str
    seen_in_training: bool
    n: int
    auc: Estimate
    ranked_right: Estimate


@dataclass(frozen=True)
class PairTable:
    """Every regenerator in one condition; the mean is over those that training never saw."""

    condition: str
    families: tuple[PairFamily, ...]
    mean_auc: Estimate
    mean_over: tuple[str, ...]


@dataclass(frozen=True)
class ScoredPairs:
    """The logits of one family's pairs.

    Attributes:
        family: the regenerator.
        photograph_keys: of each pair.
        real_N: the logit of each photograph.
        fake_N: the logit of its regeneration.
    """

    family: str
    photograph_keys: tuple[str, ...]
    real_N: Logits  # noqa: N815  the suffix is the tensor's shape
    fake_N: Logits  # noqa: N815  the suffix is the tensor's shape

    def auc(self) -> float:
        """The AUC of the regenerations against their photographs."""
        return of_the_sample(self.real_N, self.fake_N)["auc"]

    def sampled_auc(self, count_RN: Counts) -> Sampled:
        """The AUC, whose resamples are centred on that of the pairs themselves."""
        auc_R = figures(self.real_N, self.fake_N, count_RN, count_RN)["auc"]
        return Sampled(self.auc(), auc_R + (self.auc() - np.nanmean(auc_R)))

    def ranked_right(self, count_RN: Counts) -> Sampled:
        """The share of pairs whose regeneration has the higher logit."""
        right_N = (self.fake_N > self.real_N) + 0.5 * (self.fake_N == self.real_N)
        size_R = count_RN.sum(axis=1)
        share_R = np.where(size_R > 0, count_RN @ right_N / np.maximum(1, size_R), np.nan)
        return Sampled(float(right_N.mean()), share_R)


def score_pairs(
    infer: Infer, pairs: Sequence[Pair], spec: PreprocessSpec, condition: str
) -> tuple[ScoredPairs, ...]:
    """Score both pictures of every pair, family by family in the order of their names.

    Args:
        infer: uint8 crops [N, S, S, 3] -> logits [N].
        pairs: of photographs that moved no weight.
        spec: how a worker crops.
        condition: one of ``PAIR_CONDITIONS``.
    """
    change = None if condition == NATIVE else change_of(condition)
    known: dict[str, float] = {}  # a photograph that several families share is scored once

    def logit(region_HWC: NDArray[np.uint8]) -> float:
        digest = hashlib.sha256(region_HWC.tobytes()).hexdigest()
        if digest not in known:
            changed_HWC = change(region_HWC) if change else region_HWC
            known[digest] = float(infer(crop_image(changed_HWC, spec)).mean())
        return known[digest]

    scored = []
    for family in sorted({pair.family for pair in pairs}):
        inside = [pair for pair in pairs if pair.family == family]
        real_N = np.array([logit(pair.real_HWC) for pair in inside], dtype=np.float32)
        fake_N = np.array([logit(pair.fake_HWC) for pair in inside], dtype=np.float32)
        keys = tuple(pair.photograph_key for pair in inside)
        scored.append(ScoredPairs(family, keys, real_N, fake_N))
    return tuple(scored)


def pair_table(
    scored: Sequence[ScoredPairs], condition: str, seen: Seen, bootstrap: Bootstrap
) -> PairTable:
    """Compare the two pictures of every pair, family by family."""
    families, samples = [], {}
    for family, count_RN in _draws(scored, bootstrap):
        samples[family.family] = family.sampled_auc(count_RN)
        families.append(
            PairFamily(
                family=family.family,
                seen_in_training=seen(family.family),
                n=len(family.real_N),
                auc=samples[family.family].estimate(),
                ranked_right=family.ranked_right(count_RN).estimate(),
            )
        )
    names = tuple(row.family for row in families if not row.seen_in_training) or tuple(samples)
    mean = Sampled.mean([samples[name] for name in names]).estimate()
    return PairTable(condition, tuple(families), mean, names)


def mean_pair_samples(scored: Sequence[ScoredPairs], bootstrap: Bootstrap) -> Sampled:
    """The mean AUC over all families, with its resamples of photographs."""
    return Sampled.mean(
        [family.sampled_auc(count_RN) for family, count_RN in _draws(scored, bootstrap)]
    )


def with_pairs(
    result: SplitResult, infer: Infer, pairs: Sequence[Pair], spec: PreprocessSpec
) -> SplitResult:
    """The result with the pairs' mean AUC beside that of the generators, by condition."""
    means = {
        f"pairs, {name}": float(
            np.mean([family.auc() for family in score_pairs(infer, pairs, spec, name)])
        )
        for name in PAIR_CONDITIONS
    }
    return replace(result, mean_auc=result.mean_auc | means)


def _draws(scored: Sequence[ScoredPairs], bootstrap: Bootstrap) -> list[tuple[ScoredPairs, Counts]]:
    """How often each pair of a family counts: a photograph is drawn with all its regenerations."""
    photographs = sorted({key for family in scored for key in family.photograph_keys})
    column = {key: index for index, key in enumerate(photographs)}
    count_RP = bootstrap.counts(len(photographs), 2)
    return [
        (family, count_RP[:, [column[key] for key in family.photograph_keys]]) for family in scored
    ]
