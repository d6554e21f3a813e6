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

from engines.manifest import PreprocessSpec
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


def pair_table(
    infer: Infer,
    pairs: Sequence[Pair],
    spec: PreprocessSpec,
    condition: str,
    seen: Seen,
    bootstrap: Bootstrap,
) -> PairTable:
    """Score both of every pair and compare."""
    photographs = sorted({one.photograph_key for one in pairs})
    row = {key: index for index, key in enumerate(photographs)}
    random = np.random.default_rng((bootstrap.seed, 2))
    count_RP = resampled_counts(len(photographs), bootstrap.resamples, random)
    judge = _Judge(infer, spec, condition)
    families, samples = [], {}
    for name in sorted({one.family for one in pairs}):
        inside = [one for one in pairs if one.family == name]
        real_N = judge.logits([one.real_HWC for one in inside])
        fake_N = judge.logits([one.fake_HWC for one in inside])
        samples[name], right_R = _compared(
            real_N, fake_N, count_RP[:, [row[one.photograph_key] for one in inside]]
        )
        auc_1, right_1 = _compared(real_N, fake_N, once(len(inside)))
        samples[name] += auc_1[0] - np.nanmean(samples[name])
        auc, right = interval(auc_1[0], samples[name]), interval(right_1[0], right_R)
        families.append(PairFamily(name, seen(name), len(inside), auc, right))
    counted = [one for one in families if not one.seen_in_training] or families
    mean = float(np.mean([one.auc.value for one in counted]))
    sample_R = np.nanmean([samples[one.family] for one in counted], axis=0)
    names = tuple(one.family for one in counted)
    return PairTable(condition, tuple(families), interval(mean, sample_R), names)


def mean_pair_auc(
    infer: Infer, pairs: Sequence[Pair], spec: PreprocessSpec, condition: str
) -> float:
    """The AUC of each family's regenerations against their photographs, the mean over families; no interval."""
    judge, found = _Judge(infer, spec, condition), []
    for name in sorted({one.family for one in pairs}):
        inside = [one for one in pairs if one.family == name]
        real_N = judge.logits([one.real_HWC for one in inside])
        fake_N = judge.logits([one.fake_HWC for one in inside])
        found.append(_compared(real_N, fake_N, once(len(inside)))[0][0])
    return float(np.mean(found))


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


def _compared(real_N: Logits, fake_N: Logits, count_RN: Counts) -> tuple[Values, Values]:
    auc_R = figures(real_N, fake_N, count_RN, count_RN)["auc"]
    right_N = (fake_N > real_N) + 0.5 * (fake_N == real_N)
    size_R = count_RN.sum(axis=1)
    share_R = np.where(size_R > 0, count_RN @ right_N / np.maximum(1, size_R), np.nan)
    return auc_R, share_R
