"""Which of several ways to score pictures ranks them best: detectors, or ways to crop for one.

In: ``Candidate`` for each, ``Material`` that shaped none of them. Out: ``Ranked`` for each. Errors:
``EvaluationError`` where a class is missing.

Which of them to take is settled on pictures that judge nothing else, before the test split is looked at.
Every one is judged beside the first on each draw of the same pictures, so that what makes a picture hard for
both cancels out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from engines.bundle.manifest import PreprocessSpec
from trainer.data.dataset import Picture
from trainer.data.pairs import Pair
from trainer.evaluation import pairs as of_pairs
from trainer.evaluation.families import CONDITIONS, Infer, Scored, covered_px, score
from trainer.evaluation.flagged import Flagged, flagged
from trainer.evaluation.metrics import Bootstrap, mean_difference, table
from trainer.evaluation.pairs import (
    ScoredPairs,
    mean_pair_difference,
    mean_pair_interval,
    score_pairs,
)
from trainer.evaluation.resampling import Interval

_LEAST_REALS = 100  # of fewer, none may be flagged where 1 % may


@dataclass(frozen=True)
class Candidate:
    """A way to score pictures.

    Attributes:
        name: for a person.
        infer: uint8 crops [N, S, S, 3] -> logits [N].
        spec: how pictures are cropped for it.
    """

    name: str
    infer: Infer
    spec: PreprocessSpec


@dataclass(frozen=True)
class Material:
    """What candidates are judged by: nothing that shaped the weights, or that judges later.

    Attributes:
        pictures: of both classes, whole.
        pairs: photographs with their regenerations, of such photographs.
        apart: real pictures of other kinds, which no ranking counts.
    """

    pictures: Sequence[Picture]
    pairs: Sequence[Pair] = ()
    apart: Sequence[Picture] = ()


@dataclass(frozen=True)
class Ranked:
    """What one candidate makes of the pictures.

    Attributes:
        name: the candidate's.
        spec: how pictures were cropped.
        aligned_px: the shorter side that the aligned pictures are brought to.
        auc: by what is ranked: "native" and "aligned" (the mean over families), and, where there are pairs,
            "pairs, native" and "pairs, jpeg90" (the mean over regenerators of photographs against their
            own regenerations).
        less_first: that, less what the first candidate has on each draw of the same pictures.
        caught_at_1: of the generated pictures, native, the share that is caught where 1 % of the real ones
            are flagged, the mean over families; None where those are too few for 1 %.
        flagged: of the real pictures of other kinds, native, the share that is flagged where so many of
            the photographs are ("5 %", "1 %"), the mean over their folders; empty where there are none.
        flagged_less_first: that, less what the first candidate flags on each draw of the same pictures.
    """

    name: str
    spec: PreprocessSpec
    aligned_px: int
    auc: dict[str, Interval]
    less_first: dict[str, Interval]
    caught_at_1: Interval | None
    flagged: dict[str, Interval]
    flagged_less_first: dict[str, Interval]

    @property
    def figure(self) -> float:
        """What candidates are ordered by: the mean of all that ranks, as a run's validation has it."""
        return fmean(one.value for one in self.auc.values())


@dataclass(frozen=True)
class _Logits:
    of_families: dict[str, Scored]
    of_pairs: dict[str, tuple[ScoredPairs, ...]]
    flagged: dict[str, Flagged]


def ranked(
    candidates: Sequence[Candidate], material: Material, bootstrap: Bootstrap
) -> Iterator[Ranked]:
    """Score all pictures and pairs by each candidate, in turn.

    Args:
        candidates: the others are compared with the first.
        material: what they score.
        bootstrap: of the intervals.
    """
    first: _Logits | None = None
    for one in candidates:
        logits = _scored(one, material, bootstrap)
        first = first or logits
        yield _ranked(one, logits, first, bootstrap)


def _scored(one: Candidate, material: Material, bootstrap: Bootstrap) -> _Logits:
    of_families = {name: score(one.infer, material.pictures, one.spec, name) for name in CONDITIONS}
    names = of_pairs.CONDITIONS if material.pairs else ()
    apart = score(one.infer, material.apart, one.spec, "native")
    return _Logits(
        {str(name): scored for name, scored in of_families.items()},
        {
            f"pairs, {name}": score_pairs(one.infer, material.pairs, one.spec, name)
            for name in names
        },
        flagged(of_families["native"], apart, bootstrap),
    )


def _ranked(one: Candidate, logits: _Logits, first: _Logits, bootstrap: Bootstrap) -> Ranked:
    tables = {
        name: table(scored, name, lambda _family: False, bootstrap)
        for name, scored in logits.of_families.items()
    }
    auc = {name: found.mean["auc"] for name, found in tables.items()}
    less_first = {
        name: mean_difference(scored, first.of_families[name], bootstrap)
        for name, scored in logits.of_families.items()
    }
    for name, scored in logits.of_pairs.items():
        auc[name] = mean_pair_interval(scored, bootstrap)
        less_first[name] = mean_pair_difference(scored, first.of_pairs[name], bootstrap)
    native = tables["native"]
    caught = native.mean["tpr_at_fpr_1"] if native.n_real >= _LEAST_REALS else None
    return Ranked(
        one.name,
        one.spec,
        covered_px(one.spec),
        auc,
        less_first,
        caught,
        {rate: share.interval for rate, share in logits.flagged.items()},
        {rate: share.less(first.flagged[rate]) for rate, share in logits.flagged.items()},
    )


def best(found: Sequence[Ranked], fits: Sequence[bool]) -> Ranked | None:
    """The one that ranks best of those that may be taken, the first of equals; None where none may."""
    fitting = [one for one, fit in zip(found, fits, strict=True) if fit]
    return max(fitting, key=lambda one: one.figure, default=None)


def how_sure(chosen: Ranked) -> str:
    """Whether these pictures can tell the chosen one from the first."""
    sure = [name for name, less in chosen.less_first.items() if less.low > 0]
    if not sure:
        return "though these pictures cannot tell it from the first"
    return f"{'; '.join(sure)} by an interval that leaves out zero"
