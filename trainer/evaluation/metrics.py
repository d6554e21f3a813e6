"""Every figure of every family, with its interval; the mean over families, and the worst.

In: the logits of a split. Out: ``Table``. Errors: ``EvaluationError`` where a class is missing.

The bootstrap is stratified: real and generated images are drawn apart, so that their proportion
stays. All families of a resample are judged beside the same draw of real images, since they share
them: the interval of the mean knows that the families are not independent.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.errors import EvaluationError
from trainer.evaluation.families import Scored
from trainer.evaluation.resampling import (
    FIGURES,
    Counts,
    Interval,
    figures,
    interval,
    of_the_sample,
    resampled_counts,
)

Seen = Callable[[str], bool]  # whether training had images of a family


@dataclass(frozen=True)
class Bootstrap:
    """How many resamples, and the seed of their draws."""

    resamples: int
    seed: int


@dataclass(frozen=True)
class Family:
    """One generator against all real images."""

    family: str
    seen_in_training: bool
    n_fake: int
    figures: dict[str, Interval]


@dataclass(frozen=True)
class Table:
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
    families: tuple[Family, ...]
    mean: dict[str, Interval]
    mean_over: tuple[str, ...]
    worst: str

    def of(self, family: str) -> Family:
        """The figures of one family."""
        return next(one for one in self.families if one.family == family)


def table(scored: Scored, condition: str, seen: Seen, bootstrap: Bootstrap) -> Table:
    """Measure every family of a split."""
    real_N = scored.of(0)
    families, samples = [], {}
    for name, draws in _draws(scored, bootstrap).items():
        fake_M = scored.of(1, name)
        samples[name] = figures(real_N, fake_M, draws.real_count_RN, draws.fake_count_RM)
        whole = of_the_sample(real_N, fake_M)
        found = {one: interval(whole[one], samples[name][one]) for one in FIGURES}
        families.append(Family(name, seen(name), len(fake_M), found))
    counted = [one for one in families if not one.seen_in_training] or families
    mean = {}
    for one in FIGURES:
        sample_R = np.mean([samples[family.family][one] for family in counted], axis=0)
        value = float(np.mean([family.figures[one].value for family in counted]))
        mean[one] = interval(value, sample_R)
    worst = min(counted, key=lambda family: family.figures["auc"].value)
    return Table(
        condition=condition,
        n_real=len(real_N),
        families=tuple(families),
        mean=mean,
        mean_over=tuple(family.family for family in counted),
        worst=worst.family,
    )


def mean_difference(first: Scored, second: Scored, bootstrap: Bootstrap) -> Interval:
    """The mean AUC over families of one way to score pictures, less that of another.

    Args:
        first: of some pictures.
        second: of the same ones, in the same order; both are judged on each draw of them.
        bootstrap: of the draws.
    """
    if [one.source for one in first.pictures] != [one.source for one in second.pictures]:
        raise ValueError("a paired difference needs the same pictures in the same order")
    whole, samples = [], []
    for name, draws in _draws(first, bootstrap).items():
        two = [(one.of(0), one.of(1, name)) for one in (first, second)]
        auc = [of_the_sample(*one)["auc"] for one in two]
        auc_R = [figures(*one, draws.real_count_RN, draws.fake_count_RM)["auc"] for one in two]
        whole.append(auc[0] - auc[1])
        samples.append(auc_R[0] - auc_R[1])
    return interval(float(np.mean(whole)), np.mean(samples, axis=0))


@dataclass(frozen=True)
class _Draws:
    """How often each image counts in each resample; the real ones' are the same for every family."""

    real_count_RN: Counts  # noqa: N815  the suffix is the tensor's shape
    fake_count_RM: Counts  # noqa: N815  the suffix is the tensor's shape


def _draws(scored: Scored, bootstrap: Bootstrap) -> dict[str, _Draws]:
    """The resamples of each family; a family's own do not depend on which others there are."""
    n_real, names = len(scored.of(0)), scored.folders(1)
    if not n_real or not names:
        raise EvaluationError(
            "the split has no real or no generated image: name folders of both in its "
            "data.splits, or evaluate another --split"
        )
    real_count_RN = resampled_counts(
        n_real, bootstrap.resamples, np.random.default_rng((bootstrap.seed, 0))
    )

    def own(name: str) -> Counts:
        random = np.random.default_rng((bootstrap.seed, 1, zlib.crc32(name.encode())))
        return resampled_counts(len(scored.of(1, name)), bootstrap.resamples, random)

    return {name: _Draws(real_count_RN, own(name)) for name in names}
