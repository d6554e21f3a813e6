"""What a set of paired runs says of the difference between two detectors.

In: logits by image of a variant and of its baseline, for the same fold and seed. Out: means,
spreads over seeds, differences of AUC with bootstrap intervals, counts of signs. No errors.

A difference of AUC is a mean over pairs of a generated and a real image: the variant's share of
pairs ranked right less the baseline's, ties counting half (Mann and Whitney 1947). A bootstrap
replicate draws seeds, real images and each family's images anew, the same for both detectors
(Efron and Tibshirani 1993, the percentile interval). With few seeds it understates their spread.
``trainer.evaluation.paired`` compares two detectors on one set of images; here families, folds
and seeds are compared at once, the families of all folds by the same draw of photographs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest  # type: ignore[import-untyped]  # scipy ships no types

from trainer.evaluation.resampling import Interval, interval, resampled_counts

Logits = Mapping[str, float]  # by image: "real/..." or "fake/FAMILY/..."
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """The mean over seeds, and the sample standard deviation where there are two at least."""

    mean: float
    std: float | None
    seeds: int


@dataclass(frozen=True)
class Signs:
    """On how many folds the variant is ahead; p is of a two-sided sign test, ties left out."""

    ahead: int
    behind: int
    p: float


@dataclass(frozen=True)
class PairedRun:
    """A variant and its baseline, judged on the same images after the same fold and seed."""

    fold: tuple[str, ...]
    seed: int
    variant: Logits
    baseline: Logits


@dataclass(frozen=True)
class Difference:
    """AUC of the variant less that of the baseline.

    Attributes:
        families: of each family, over its seeds.
        mean: of the families at hand, over seeds and images.
        mean_any: the same with the folds drawn anew too: of families like these.
        signs: over folds.
        seeds: how many were drawn from.
    """

    families: dict[str, Interval]
    mean: Interval
    mean_any: Interval
    signs: Signs
    seeds: int


@dataclass(frozen=True)
class _Block:
    """A family: for each seed, by how much each (generated, real) pair is ranked better."""

    family: str
    fold: tuple[str, ...]
    real_M: NDArray[np.intp]  # noqa: N815  places of its real images among all
    gain_SFM: dict[int, Floats]  # noqa: N815  by seed

    @property
    def value(self) -> float:
        return float(np.mean([one.mean() for one in self.gain_SFM.values()]))


def ranked_right(fake_F: Floats, real_M: Floats) -> Floats:
    """1 where the generated image has the larger logit, a half where they are equal [F, M]."""
    above: Floats = (fake_F[:, None] > real_M[None, :]).astype(np.float64)
    above += 0.5 * (fake_F[:, None] == real_M[None, :])
    return above


def difference(runs: Sequence[PairedRun], resamples: int, seed: int = 0) -> Difference | None:
    """Compare; None where no family has an image to judge by."""
    blocks, real_count = _blocks(runs)
    if not blocks:
        return None
    seeds = sorted({one for block in blocks for one in block.gain_SFM})
    random = np.random.default_rng(seed)
    seed_BS = _drawn(random, resamples, len(seeds))
    real_BM = _drawn(random, resamples, real_count)
    gain_KB = np.stack(
        [_replicates(block, seeds, seed_BS, real_BM, random) for block in blocks]
    )  # NaN where none of a block's seeds was drawn
    values = [block.value for block in blocks]
    folds = sorted({block.fold for block in blocks})
    weight_FB = _drawn(random, resamples, len(folds)).T
    weight_KB = weight_FB[[folds.index(block.fold) for block in blocks]]
    mean = float(np.mean(values))
    return Difference(
        families={
            block.family: interval(block.value, gain_KB[index])
            for index, block in enumerate(blocks)
        },
        mean=interval(mean, np.nanmean(gain_KB, axis=0)),
        mean_any=interval(mean, _weighted(gain_KB, weight_KB)),
        signs=signs([_of_fold(blocks, fold) for fold in folds]),
        seeds=len(seeds),
    )


def _blocks(runs: Sequence[PairedRun]) -> tuple[list[_Block], int]:
    reals = sorted({key for run in runs for key in _shared(run) if key.startswith("real/")})
    place = {key: index for index, key in enumerate(reals)}
    blocks: list[_Block] = []
    for fold in sorted({run.fold for run in runs}):
        of_fold = [run for run in runs if run.fold == fold]
        common = sorted(set.intersection(*(_shared(run) for run in of_fold)))
        real = [key for key in common if key in place]
        for family in fold:
            fake = [key for key in common if key.startswith(f"fake/{family}/")]
            gain = {run.seed: _gain(run, fake, real) for run in of_fold}
            places = np.array([place[key] for key in real], dtype=np.intp)
            if fake and real:
                blocks.append(_Block(family, fold, places, gain))
    return blocks, len(reals)


def _shared(run: PairedRun) -> set[str]:
    return set(run.variant) & set(run.baseline)


def _gain(run: PairedRun, fake: Sequence[str], real: Sequence[str]) -> Floats:
    ranked = [
        ranked_right(
            np.array([logits[key] for key in fake]), np.array([logits[key] for key in real])
        )
        for logits in (run.variant, run.baseline)
    ]
    gain_FM: Floats = ranked[0] - ranked[1]
    return gain_FM


def _drawn(random: np.random.Generator, resamples: int, count: int) -> Floats:
    """How often each of ``count`` is drawn, in each replicate [B, count]."""
    return resampled_counts(count, resamples, random).astype(np.float64)


def _replicates(
    block: _Block,
    seeds: Sequence[int],
    seed_BS: Floats,
    real_BM: Floats,
    random: np.random.Generator,
) -> Floats:
    """The difference of one family in each replicate [B]."""
    fakes = next(iter(block.gain_SFM.values())).shape[0]
    fake_BF = _drawn(random, len(seed_BS), fakes)
    own_BM = real_BM[:, block.real_M]
    total_B, weight_B = np.zeros(len(seed_BS)), np.zeros(len(seed_BS))
    for one, gain_FM in block.gain_SFM.items():
        seed_B = seed_BS[:, seeds.index(one)]
        total_B += seed_B * np.einsum("bm,bm->b", fake_BF @ gain_FM, own_BM)
        weight_B += seed_B
    with np.errstate(invalid="ignore", divide="ignore"):
        gain_B: Floats = total_B / (weight_B * fakes * own_BM.sum(axis=1))
    return gain_B


def _weighted(gain_KB: Floats, weight_KB: Floats) -> Floats:
    weight_KB = np.where(np.isnan(gain_KB), 0.0, weight_KB)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_B: Floats = (np.nan_to_num(gain_KB) * weight_KB).sum(axis=0) / weight_KB.sum(axis=0)
    return mean_B


def _of_fold(blocks: Sequence[_Block], fold: tuple[str, ...]) -> float:
    return float(np.mean([block.value for block in blocks if block.fold == fold]))


def signs(differences: Sequence[float]) -> Signs:
    """How many are above zero, how many below, and how likely chance does as much."""
    ahead, behind = sum(one > 0 for one in differences), sum(one < 0 for one in differences)
    decided = ahead + behind
    p = float(binomtest(ahead, decided).pvalue) if decided else 1.0
    return Signs(ahead, behind, p)


def spread(value_by_seed: Mapping[int, Sequence[float]]) -> Spread:
    """The mean over each seed's figures, then over seeds."""
    means = [float(np.mean(values)) for values in value_by_seed.values()]
    std = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return Spread(math.fsum(means) / len(means), std, len(means))
