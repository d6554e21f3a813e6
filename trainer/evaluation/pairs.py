"""Photographs against their own regenerations: pairs that share everything but the decoder.

Subject, framing, size and format are the same in both, so that only the traces of the regenerator
can tell them apart. The bootstrap draws *photographs*, each with all of its regenerations. A
photograph that is drawn twice is set against two copies of its own regeneration, which raises the
AUC of a resample a little. The resamples are therefore centred on the figure itself.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import crop_image
from trainer.data.pairs import Pair
from trainer.evaluation.metrics import (
    Bootstrap,
    Counts,
    Estimate,
    Sampled,
    Seen,
    SplitResult,
    figures,
    once,
)
from trainer.evaluation.scoring import Infer, Logits, change_of

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
        count_1N = once(len(self.real_N))
        return float(figures(self.real_N, self.fake_N, count_1N, count_1N)["auc"][0])

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


def mean_pair_auc(
    infer: Infer, pairs: Sequence[Pair], spec: PreprocessSpec, condition: str
) -> float:
    """The AUC of each family's regenerations against their photographs, mean over families."""
    scored = score_pairs(infer, pairs, spec, condition)
    return float(np.mean([family.auc() for family in scored]))


def mean_pair_samples(scored: Sequence[ScoredPairs], bootstrap: Bootstrap) -> Sampled:
    """That mean over all families, with its resamples of photographs."""
    return Sampled.mean(
        [family.sampled_auc(count_RN) for family, count_RN in _draws(scored, bootstrap)]
    )


def with_pairs(
    result: SplitResult, infer: Infer, pairs: Sequence[Pair], spec: PreprocessSpec
) -> SplitResult:
    """The result with the pairs' mean AUC beside that of the generators, by condition."""
    means = {f"pairs, {name}": mean_pair_auc(infer, pairs, spec, name) for name in PAIR_CONDITIONS}
    return replace(result, mean_auc=result.mean_auc | means)


def _draws(scored: Sequence[ScoredPairs], bootstrap: Bootstrap) -> list[tuple[ScoredPairs, Counts]]:
    """How often each pair of a family counts: a photograph is drawn with all its regenerations."""
    photographs = sorted({key for family in scored for key in family.photograph_keys})
    column = {key: index for index, key in enumerate(photographs)}
    count_RP = bootstrap.counts(len(photographs), 2)
    return [
        (family, count_RP[:, [column[key] for key in family.photograph_keys]]) for family in scored
    ]
