"""Which of several ways to score pictures ranks them best: detectors, or crops for a detector.

The choice is made on pictures that judge nothing else, before anybody looks at the test split.
Every alternative is judged beside the first on each draw of the same pictures, so that what makes
a picture hard for both cancels out.

Thresholds are set on photographs. Of two detectors that rank those alike, one may flag twice as
many drawings, and no ranking says so. Hence the share of real pictures of other kinds that is
flagged where 5 % and 1 % of the photographs are.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from engines.bundle.manifest import PreprocessSpec, crops_of
from engines.preprocess import PREPROCESS_VERSION
from trainer.data.dataset import Picture
from trainer.data.pairs import Pair
from trainer.evaluation.metrics import (
    PAIR_CONDITIONS,
    Bootstrap,
    Estimate,
    Sampled,
    family_samples,
    mean_pair_samples,
    sampled_figures,
    score_pairs,
)
from trainer.evaluation.scoring import (
    CONDITIONS,
    EvaluationError,
    Infer,
    Logits,
    ScoredPictures,
    covered_px,
    score,
)

# By the share of the photographs that may be flagged: the figure that says how much of the other
# class is above all but that share, and how many photographs make a single one that share.
_RATES: Final = MappingProxyType({"5 %": ("tpr_at_fpr_5", 20), "1 %": ("tpr_at_fpr_1", 100)})
CAUGHT, FLAGGED = "TPR at FPR 1 %", "other kinds at FPR"


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
    """The data that ranks alternatives: unused in training, and never the test split.

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
        more: figures of the native pictures that do not rank. The share of generated pictures
            caught where 1 % of the real ones are flagged. The share of other kinds flagged where
            5 % and 1 % of the photographs are (the mean over folders). Figures that need more
            photographs are left out.
        less_first: each figure minus that of the first alternative on the same draws.
    """

    name: str
    spec: PreprocessSpec
    aligned_px: int
    auc: dict[str, Estimate]
    more: dict[str, Estimate]
    less_first: dict[str, Estimate]

    @property
    def figure(self) -> float:
        """The mean of every AUC, which orders the alternatives."""
        return fmean(auc.value for auc in self.auc.values())


def compare(
    alternatives: Sequence[Alternative], data: ComparisonData, bootstrap: Bootstrap
) -> Iterator[ComparisonRow]:
    """Score all pictures and pairs by each alternative in turn; the first is the reference."""
    first: dict[str, Sampled] = {}
    for alternative in alternatives:
        auc, more = _figures(alternative, data, bootstrap)
        first = first or auc | more
        yield ComparisonRow(
            name=alternative.name,
            spec=alternative.spec,
            aligned_px=covered_px(alternative.spec),
            auc={name: figure.estimate() for name, figure in auc.items()},
            more={name: figure.estimate() for name, figure in more.items()},
            less_first={
                name: (figure - first[name]).estimate() for name, figure in (auc | more).items()
            },
        )


def _figures(
    alternative: Alternative, data: ComparisonData, bootstrap: Bootstrap
) -> tuple[dict[str, Sampled], dict[str, Sampled]]:
    """What ranks, and what else is measured."""
    infer, spec = alternative.infer, alternative.spec
    scored = {name: score(infer, data.pictures, spec, name) for name in CONDITIONS}
    families = {name: list(family_samples(scored[name], bootstrap).values()) for name in CONDITIONS}
    auc: dict[str, Sampled] = {
        name: Sampled.mean([family["auc"] for family in families[name]]) for name in CONDITIONS
    }
    for name in PAIR_CONDITIONS if data.pairs else ():
        pairs = score_pairs(infer, data.pairs, spec, name)
        auc[f"pairs, {name}"] = mean_pair_samples(pairs, bootstrap)
    more, photographs = {}, scored["native"].of(0)
    figure, least = _RATES["1 %"]
    if len(photographs) >= least:
        more[CAUGHT] = Sampled.mean([family[figure] for family in families["native"]])
    others = score(infer, data.out_of_domain, spec, "native")
    return auc, more | _flagged(photographs, others, bootstrap)


def _flagged(real_N: Logits, others: ScoredPictures, bootstrap: Bootstrap) -> dict[str, Sampled]:
    """The share of other kinds of pictures above all but 5 % and 1 % of the photographs.

    A folder counts the same however many pictures it has.
    """
    real_count_RN, folders = bootstrap.counts(len(real_N), 0), []
    for folder in others.folders(0):
        other_M = others.of(0, folder)
        count_RM = bootstrap.counts(len(other_M), 2, zlib.crc32(folder.encode()))
        folders.append(sampled_figures(real_N, other_M, real_count_RN, count_RM))
    return {
        f"{FLAGGED} {rate}": Sampled.mean([sampled[figure] for sampled in folders])
        for rate, (figure, least) in _RATES.items()
        if folders and len(real_N) >= least
    }


def best_row(rows: Sequence[ComparisonRow], eligible: Sequence[bool]) -> ComparisonRow | None:
    """The eligible row that ranks best, the first of equals; None where none is eligible."""
    fitting = [row for row, fits in zip(rows, eligible, strict=True) if fits]
    return max(fitting, key=lambda row: row.figure, default=None)


def certainty(row: ComparisonRow) -> str:
    """Whether these pictures can tell the row from the first, in words."""
    sure = [name for name in row.auc if row.less_first[name].low > 0]
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
