"""Photographs against their own regenerations: pairs that share everything but the decoder.

In: pairs of an unseen photograph and its fake. Out: a ``PairTable`` for each condition. Errors:
those of the parts.

Subject, framing, size and format are the same in both, so nothing but the traces of the
regenerator can tell them. The bootstrap draws *photographs*, each with all of its regenerations. A
photograph that is drawn twice is set against two copies of its own regeneration, which lifts the
AUC of a resample a little: the resamples are therefore centred on the figure itself.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import crop_image
from trainer.data.pairs import Pair
from trainer.evaluation.changes import change
from trainer.evaluation.families import Infer, Report
from trainer.evaluation.metrics import Bootstrap, Seen
from trainer.evaluation.resampling import (
    Counts,
    Interval,
    Logits,
    Values,
    figures,
    interval,
    once,
    resampled_counts,
)

NATIVE = "native"
CONDITIONS = (NATIVE, "jpeg90")  # as the pairs are stored, and both of each saved once more


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
    auc: Interval
    ranked_right: Interval


@dataclass(frozen=True)
class PairTable:
    """Every regenerator in one condition; the mean is over those that training never saw."""

    condition: str
    families: tuple[PairFamily, ...]
    mean_auc: Interval
    mean_over: tuple[str, ...]


@dataclass(frozen=True)
class ScoredPairs:
    """One family's pairs, as a detector sees them.

    Attributes:
        family: the regenerator.
        photograph_keys: of each pair.
        real_N: the logit of each photograph.
        fake_N: that of its regeneration.
    """

    family: str
    photograph_keys: tuple[str, ...]
    real_N: Logits  # noqa: N815  the suffix is the tensor's shape
    fake_N: Logits  # noqa: N815  the suffix is the tensor's shape


def score_pairs(
    infer: Infer, pairs: Sequence[Pair], spec: PreprocessSpec, condition: str
) -> tuple[ScoredPairs, ...]:
    """Score both of every pair, family by family in the order of their names.

    Args:
        infer: uint8 crops [N, S, S, 3] -> logits [N].
        pairs: of photographs that moved no weight.
        spec: how a worker crops.
        condition: one of ``CONDITIONS``.
    """
    judge, found = _Judge(infer, spec, condition), []
    for name in sorted({one.family for one in pairs}):
        inside = [one for one in pairs if one.family == name]
        found.append(
            ScoredPairs(
                name,
                tuple(one.photograph_key for one in inside),
                judge.logits([one.real_HWC for one in inside]),
                judge.logits([one.fake_HWC for one in inside]),
            )
        )
    return tuple(found)


def pair_table(
    infer: Infer,
    pairs: Sequence[Pair],
    spec: PreprocessSpec,
    condition: str,
    seen: Seen,
    bootstrap: Bootstrap,
) -> PairTable:
    """Score both of every pair and compare."""
    scored = score_pairs(infer, pairs, spec, condition)
    families, samples = [], {}
    for one, count_RN in _draws(scored, bootstrap):
        auc, samples[one.family] = _auc(one, count_RN)
        right = interval(_right(one, once(len(one.real_N)))[0], _right(one, count_RN))
        auc_interval = interval(auc, samples[one.family])
        families.append(
            PairFamily(one.family, seen(one.family), len(one.real_N), auc_interval, right)
        )
    counted = [one for one in families if not one.seen_in_training] or families
    mean = float(np.mean([one.auc.value for one in counted]))
    sample_R = np.nanmean([samples[one.family] for one in counted], axis=0)
    names = tuple(one.family for one in counted)
    return PairTable(condition, tuple(families), interval(mean, sample_R), names)


def mean_pair_auc(
    infer: Infer, pairs: Sequence[Pair], spec: PreprocessSpec, condition: str
) -> float:
    """The AUC of each family's regenerations against their photographs, the mean over families; no interval."""
    scored = score_pairs(infer, pairs, spec, condition)
    return float(np.mean([_auc_once(one) for one in scored]))


def mean_pair_interval(scored: Sequence[ScoredPairs], bootstrap: Bootstrap) -> Interval:
    """That mean over all families, with its interval."""
    whole, sample_R = _mean_auc(scored, bootstrap)
    return interval(whole, sample_R)


def mean_pair_difference(
    first: Sequence[ScoredPairs], second: Sequence[ScoredPairs], bootstrap: Bootstrap
) -> Interval:
    """That mean of one detector, less that of another.

    Args:
        first: some pairs by the one.
        second: the same ones by the other, in the same order; both are judged on each draw of photographs.
        bootstrap: of the draws.
    """
    of_first, of_second = (
        [(one.family, one.photograph_keys) for one in s] for s in (first, second)
    )
    if of_first != of_second:
        raise ValueError("a paired difference needs the same pairs in the same order")
    (one, one_R), (other, other_R) = (_mean_auc(each, bootstrap) for each in (first, second))
    return interval(one - other, one_R - other_R)


def with_pairs(report: Report, infer: Infer, pairs: Sequence[Pair], spec: PreprocessSpec) -> Report:
    """The report with the pairs' mean AUC beside that of the generators, by condition."""
    means = {f"pairs, {name}": mean_pair_auc(infer, pairs, spec, name) for name in CONDITIONS}
    return replace(report, mean_auc=report.mean_auc | means)


class _Judge:
    """Logits of regions; a photograph that several families share is scored once."""

    def __init__(self, infer: Infer, spec: PreprocessSpec, condition: str) -> None:
        self._infer, self._spec = infer, spec
        self._change = None if condition == NATIVE else change(condition)
        self._known: dict[str, float] = {}

    def logits(self, regions: Sequence[NDArray[np.uint8]]) -> Logits:
        """The logit of each region [H, W, 3], the mean over its crops."""
        return np.array([self._logit(one) for one in regions], dtype=np.float32)

    def _logit(self, region_HWC: NDArray[np.uint8]) -> float:
        digest = hashlib.sha256(region_HWC.tobytes()).hexdigest()
        if digest not in self._known:
            changed_HWC = self._change(region_HWC) if self._change else region_HWC
            self._known[digest] = float(self._infer(crop_image(changed_HWC, self._spec)).mean())
        return self._known[digest]


def _draws(scored: Sequence[ScoredPairs], bootstrap: Bootstrap) -> list[tuple[ScoredPairs, Counts]]:
    """How often each pair of a family counts: a photograph is drawn with all of its regenerations."""
    photographs = sorted({key for one in scored for key in one.photograph_keys})
    row = {key: index for index, key in enumerate(photographs)}
    random = np.random.default_rng((bootstrap.seed, 2))
    count_RP = resampled_counts(len(photographs), bootstrap.resamples, random)
    return [(one, count_RP[:, [row[key] for key in one.photograph_keys]]) for one in scored]


def _mean_auc(scored: Sequence[ScoredPairs], bootstrap: Bootstrap) -> tuple[float, Values]:
    """The mean over all families, and that of each resample."""
    found = [_auc(*one) for one in _draws(scored, bootstrap)]
    whole = float(np.mean([auc for auc, _ in found]))
    return whole, np.nanmean([sample_R for _, sample_R in found], axis=0)


def _auc(one: ScoredPairs, count_RN: Counts) -> tuple[float, Values]:
    """The figure, and the resamples centred on it."""
    auc_R = figures(one.real_N, one.fake_N, count_RN, count_RN)["auc"]
    whole = _auc_once(one)
    return whole, auc_R + (whole - np.nanmean(auc_R))


def _auc_once(one: ScoredPairs) -> float:
    count_1N = once(len(one.real_N))
    return float(figures(one.real_N, one.fake_N, count_1N, count_1N)["auc"][0])


def _right(one: ScoredPairs, count_RN: Counts) -> Values:
    right_N = (one.fake_N > one.real_N) + 0.5 * (one.fake_N == one.real_N)
    size_R = count_RN.sum(axis=1)
    share_R: Values = np.where(size_R > 0, count_RN @ right_N / np.maximum(1, size_R), np.nan)
    return share_R
