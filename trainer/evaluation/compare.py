"""Which of several ways to score pictures ranks them best: detectors, or crops for a detector.

The choice is made on pictures that judge nothing else, before anybody looks at the test split.
Every alternative is judged beside the first on each draw of the same pictures, so that what makes
a picture hard for both cancels out.

Thresholds are set on photographs. Of two detectors that rank those alike, one may flag twice as
many drawings, and no ranking says so. Hence the share of real pictures of other kinds that is
flagged where 5 % and 1 % of the photographs are.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import Final

import numpy as np
from pydantic import ValidationError

from engines.bundle.manifest import PreprocessSpec, crops_of
from engines.preprocess import PREPROCESS_VERSION
from trainer.data.dataset import Picture
from trainer.data.pairs import Pair
from trainer.evaluation.metrics import (
    Bootstrap,
    Estimate,
    Values,
    estimate,
    family_table,
    figures,
    mean_difference,
    of_the_sample,
)
from trainer.evaluation.pairs import (
    PAIR_CONDITIONS,
    ScoredPairs,
    mean_pair_difference,
    mean_pair_estimate,
    score_pairs,
)
from trainer.evaluation.scoring import (
    CONDITIONS,
    EvaluationError,
    Infer,
    ScoredPictures,
    covered_px,
    score,
)

# By the share of the photographs that may be flagged: the figure that says how much of the other
# class is above all but that share, and how many photographs make a single one that share.
_RATES: Final = MappingProxyType({"5 %": ("tpr_at_fpr_5", 20), "1 %": ("tpr_at_fpr_1", 100)})


@dataclass(frozen=True)
class Alternative:
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
class ComparisonData:
    """What alternatives are judged by: nothing that shaped the weights, or that judges later.

    Attributes:
        pictures: of both classes, whole.
        pairs: photographs with their regenerations, of such photographs.
        out_of_domain: real pictures of other kinds, which no ranking counts.
    """

    pictures: Sequence[Picture]
    pairs: Sequence[Pair] = ()
    out_of_domain: Sequence[Picture] = ()


@dataclass(frozen=True)
class ComparisonRow:
    """The figures of one alternative.

    Attributes:
        name: the alternative's.
        spec: how pictures were cropped.
        aligned_px: the shorter side that the aligned pictures are brought to.
        auc: by what is ranked: "native" and "aligned" (the mean over families), and, where there
            are pairs, "pairs, native" and "pairs, jpeg90" (the mean over regenerators).
        less_first: that, less what the first alternative has on each draw of the same pictures.
        caught_at_1: of the generated pictures, native, the share that is caught where 1 % of the
            real ones are flagged, the mean over families; None where those are too few for 1 %.
        flagged: of the real pictures of other kinds, native, the share that is flagged where so
            many of the photographs are ("5 %", "1 %"), the mean over their folders.
        flagged_less_first: that, less what the first alternative flags on the same draws.
    """

    name: str
    spec: PreprocessSpec
    aligned_px: int
    auc: dict[str, Estimate]
    less_first: dict[str, Estimate]
    caught_at_1: Estimate | None
    flagged: dict[str, Estimate]
    flagged_less_first: dict[str, Estimate]

    @property
    def figure(self) -> float:
        """What alternatives are ordered by: the mean of every AUC, as a run's validation has it."""
        return fmean(auc.value for auc in self.auc.values())


@dataclass(frozen=True)
class _Share:
    """A share, and that of each resample."""

    value: float
    sample_R: Values  # noqa: N815  the suffix is the tensor's shape


@dataclass(frozen=True)
class _Scores:
    """What one alternative makes of the data."""

    families: Mapping[str, ScoredPictures]
    pairs: Mapping[str, tuple[ScoredPairs, ...]]
    flagged: Mapping[str, _Share]


def compare(
    alternatives: Sequence[Alternative], data: ComparisonData, bootstrap: Bootstrap
) -> Iterator[ComparisonRow]:
    """Score all pictures and pairs by each alternative, in turn.

    Args:
        alternatives: the others are compared with the first.
        data: what they score.
        bootstrap: of the intervals.
    """
    first: _Scores | None = None
    for alternative in alternatives:
        scores = _scores(alternative, data, bootstrap)
        first = first or scores
        yield _row(alternative, scores, first, bootstrap)


def _scores(alternative: Alternative, data: ComparisonData, bootstrap: Bootstrap) -> _Scores:
    infer, spec = alternative.infer, alternative.spec
    families = {str(name): score(infer, data.pictures, spec, name) for name in CONDITIONS}
    conditions = PAIR_CONDITIONS if data.pairs else ()
    others = score(infer, data.out_of_domain, spec, "native")
    return _Scores(
        families,
        {f"pairs, {name}": score_pairs(infer, data.pairs, spec, name) for name in conditions},
        _flagged(families["native"], others, bootstrap),
    )


def _row(
    alternative: Alternative, scores: _Scores, first: _Scores, bootstrap: Bootstrap
) -> ComparisonRow:
    tables = {
        name: family_table(scored, name, lambda _family: False, bootstrap)
        for name, scored in scores.families.items()
    }
    auc = {name: table.mean["auc"] for name, table in tables.items()}
    less_first = {
        name: mean_difference(scored, first.families[name], bootstrap)
        for name, scored in scores.families.items()
    }
    for name, scored in scores.pairs.items():
        auc[name] = mean_pair_estimate(scored, bootstrap)
        less_first[name] = mean_pair_difference(scored, first.pairs[name], bootstrap)
    native = tables["native"]
    figure, least = _RATES["1 %"]
    return ComparisonRow(
        name=alternative.name,
        spec=alternative.spec,
        aligned_px=covered_px(alternative.spec),
        auc=auc,
        less_first=less_first,
        caught_at_1=native.mean[figure] if native.n_real >= least else None,
        flagged={
            rate: estimate(share.value, share.sample_R) for rate, share in scores.flagged.items()
        },
        flagged_less_first={
            rate: estimate(
                share.value - first.flagged[rate].value,
                share.sample_R - first.flagged[rate].sample_R,
            )
            for rate, share in scores.flagged.items()
        },
    )


def _flagged(
    photographs: ScoredPictures, others: ScoredPictures, bootstrap: Bootstrap
) -> dict[str, _Share]:
    """The share of other kinds of pictures above all but 5 % and 1 % of the photographs.

    A folder counts the same however many pictures it has. A rate that the photographs are too few
    for is left out.
    """
    real_N = photographs.of(0)
    real_count_RN = bootstrap.counts(len(real_N), 0)
    wholes, samples = [], []
    for folder in others.folders(0):
        other_M = others.of(0, folder)
        count_RM = bootstrap.counts(len(other_M), 2, zlib.crc32(folder.encode()))
        samples.append(figures(real_N, other_M, real_count_RN, count_RM))
        wholes.append(of_the_sample(real_N, other_M))
    return {
        rate: _Share(
            float(np.mean([whole[figure] for whole in wholes])),
            np.mean([sample[figure] for sample in samples], axis=0),
        )
        for rate, (figure, least) in _RATES.items()
        if wholes and len(real_N) >= least
    }


def best_row(rows: Sequence[ComparisonRow], eligible: Sequence[bool]) -> ComparisonRow | None:
    """The eligible row that ranks best, the first of equals; None where none is eligible."""
    fitting = [row for row, fits in zip(rows, eligible, strict=True) if fits]
    return max(fitting, key=lambda row: row.figure, default=None)


def certainty(row: ComparisonRow) -> str:
    """Whether these pictures can tell the row from the first, in words."""
    sure = [name for name, less in row.less_first.items() if less.low > 0]
    if not sure:
        return "but these pictures cannot tell it from the first"
    return f"{'; '.join(sure)}: the interval of the difference leaves out zero"


def parse_crops(text: str) -> PreprocessSpec:
    """Read ``center:224``, ``grid:96:4`` or ``five_crop:96``: a policy, the side in px, a count.

    Raises:
        EvaluationError: there is no such policy.
    """
    policy, _, rest = text.partition(":")
    side, _, count = rest.partition(":")
    own = crops_of(policy)
    try:
        return PreprocessSpec.model_validate_strings(
            {
                "version": PREPROCESS_VERSION,
                "crop_policy": policy,
                "crop_px": side,
                "max_crops": count or ("" if own is None else str(own)),
            }
        )
    except ValidationError as error:
        problems = [": ".join(map(str, (*one["loc"], one["msg"]))) for one in error.errors()]
        raise EvaluationError(
            f"unknown crops {text!r} ({'; '.join(problems)}): write center:224, grid:96:4 or "
            "five_crop:96, a policy, the side of a crop in px and, for a grid, the highest count"
        ) from error


def crops_name(spec: PreprocessSpec) -> str:
    """What ``parse_crops`` reads."""
    count = f":{spec.max_crops}" if crops_of(spec.crop_policy) is None else ""
    return f"{spec.crop_policy}:{spec.crop_px}{count}"
