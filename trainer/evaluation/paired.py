"""Which of two detectors is better, on the same images.

In: the logits of either by image key (``fake/sd1/0001.png``). Out: the difference of their AUC
with a 95 % interval. Errors: ``EvaluationError`` where the images are not the same, or of one class.

The bootstrap is *paired*: each resample draws images, and both detectors are judged on that very
draw, so that what makes an image hard for both cancels out. Where a detector was trained with
several seeds, the seeds are drawn too, in pairs (the i-th run of either has the same seed). The
interval then speaks of new images and of new seeds; of three seeds it cannot say much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.errors import EvaluationError
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

LogitsByKey = Mapping[str, float]
_FAKE = "fake/"


@dataclass(frozen=True)
class PairedDifference:
    """AUC of the first less that of the second, with what it was measured on."""

    difference: Interval
    auc_first: float
    auc_second: float
    n_real: int
    n_fake: int
    n_seeds: int


def paired_difference(
    first: Sequence[LogitsByKey],
    second: Sequence[LogitsByKey],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two detectors on the same images, each trained with the same seeds.

    Args:
        first: the logits of one detector, a mapping for each seed.
        second: those of the other, in the same order of seeds.
        resamples: of the bootstrap.
        seed: of its draws; the same inputs give the same interval.
    """
    keys = _common_keys([*first, *second])
    if len(first) != len(second):
        raise EvaluationError(
            f"{len(first)} runs of one detector and {len(second)} of the other: pair them by seed"
        )
    real, fake = _by_class(keys)
    random = np.random.default_rng(seed)
    real_count = resampled_counts(len(real), resamples, random)
    fake_count = resampled_counts(len(fake), resamples, random)
    pick_RS = random.integers(0, len(first), size=(resamples, len(first)))
    whole, samples = [], []
    for runs in (first, second):
        logits = [(_logits(one, real), _logits(one, fake)) for one in runs]
        once_each = [_auc(*one, once(len(real)), once(len(fake)))[0] for one in logits]
        by_seed_SR = np.stack([_auc(*one, real_count, fake_count) for one in logits])
        whole.append(float(np.mean(once_each)))
        samples.append(np.take_along_axis(by_seed_SR.T, pick_RS, axis=1).mean(axis=1))
    return PairedDifference(
        difference=interval(whole[0] - whole[1], samples[0] - samples[1]),
        auc_first=whole[0],
        auc_second=whole[1],
        n_real=len(real),
        n_fake=len(fake),
        n_seeds=len(first),
    )


def _by_class(keys: Sequence[str]) -> tuple[list[str], list[str]]:
    real = [key for key in keys if not key.startswith(_FAKE)]
    fake = [key for key in keys if key.startswith(_FAKE)]
    if not real or not fake:
        raise EvaluationError("a difference of AUC needs real and generated images: add a class")
    return real, fake


def _auc(real_N: Logits, fake_M: Logits, real_count: Counts, fake_count: Counts) -> Values:
    return figures(real_N, fake_M, real_count, fake_count)["auc"]


def _common_keys(runs: Sequence[LogitsByKey]) -> list[str]:
    if not runs:
        raise EvaluationError("no run to compare: give each detector one at least")
    for run in runs[1:]:
        strangers = sorted(run.keys() ^ runs[0].keys())
        if strangers:
            raise EvaluationError(
                f"the detectors were not scored on the same images ({len(strangers)} differ, for "
                f"instance {strangers[0]}): score both on one split"
            )
    return sorted(runs[0])


def _logits(run: LogitsByKey, keys: Sequence[str]) -> Logits:
    return np.array([run[key] for key in keys], dtype=np.float32)
