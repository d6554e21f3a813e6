"""The threshold sets of a bundle: measured at the rates that the configuration asks for, and shown.

In: real images' logits, the fit, rates by the sets' names. Out: ``MeasuredSet`` (kept in
``calibrate.json``), the manifest's ``ThresholdSet``, tables for the card. Errors: ``CalibrationError``
where the images are too few for a rate, or there are none; it names the option that asks for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engines.bundle.manifest import OperatingPoint, ThresholdSet
from trainer.config import DEFAULT_SET, ExportConfig, RatesConfig
from trainer.evaluation.apart import named
from trainer.evaluation.calibration import CalibrationError, Fit, operating_point
from trainer.evaluation.families import Scored
from trainer.evaluation.grids import grid


@dataclass(frozen=True)
class FalseAlarms:
    """The real images of one folder at or above the thresholds of a set."""

    folder: str
    review: int
    block: int
    n: int


@dataclass(frozen=True)
class MeasuredSet:
    """The two thresholds of a set, the rates that were asked of them, and where they fail."""

    name: str
    asked: RatesConfig
    review: OperatingPoint
    block: OperatingPoint
    false_alarms: tuple[FalseAlarms, ...]

    @property
    def measured_on(self) -> str:
        """The folders."""
        return ", ".join(f"real/{one.folder}" for one in self.false_alarms)

    def points(self) -> dict[str, OperatingPoint]:
        """The operating points by band."""
        return {"review": self.review, "block": self.block}

    def as_json(self) -> dict[str, object]:
        """Plain values, for a file."""
        return {
            "name": self.name,
            "asked": self.asked.model_dump(),
            **{band: point.model_dump() for band, point in self.points().items()},
            "false_alarms": [asdict(one) for one in self.false_alarms],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "MeasuredSet":
        """Read what ``as_json`` wrote."""
        return cls(
            name=str(content["name"]),
            asked=RatesConfig.model_validate(content["asked"]),
            review=OperatingPoint.model_validate(content["review"]),
            block=OperatingPoint.model_validate(content["block"]),
            false_alarms=tuple(FalseAlarms(**one) for one in content["false_alarms"]),
        )


def measure_sets(
    reals: Scored, fitted: Fit, rates: Mapping[str, RatesConfig], apart: Sequence[str] = ()
) -> tuple[MeasuredSet, ...]:
    """Every set, in the order given.

    Args:
        reals: the threshold split.
        fitted: logit -> score.
        rates: what is asked of each set, and which folders it is measured on.
        apart: patterns of folders that a set which names none is not measured on.
    """
    return tuple(
        _measure(_measured_on(reals, name, asked, apart), fitted, name, asked)
        for name, asked in rates.items()
    )


def _measured_on(reals: Scored, name: str, asked: RatesConfig, apart: Sequence[str]) -> Scored:
    if asked.real:
        found = reals.within([one for one in reals.pictures if named(one, asked.real)])
    else:
        found = reals.within([one for one in reals.pictures if not named(one, apart)])
    if not found.pictures:
        raise CalibrationError(
            f"the threshold split holds no real image for {_table(name)}: "
            + (
                "its `real` names none of the folders"
                if asked.real
                else "evaluation.apart names all"
            )
        )
    return found


def _table(name: str) -> str:
    return "export" if name == DEFAULT_SET else f"export.threshold_sets.{name}"


def _measure(reals: Scored, fitted: Fit, name: str, asked: RatesConfig) -> MeasuredSet:
    table = _table(name)
    score_N = fitted.score(reals.of(0))
    review = operating_point(score_N, asked.review_fpr, f"{table}.review_fpr")
    block = operating_point(score_N, asked.block_fpr, f"{table}.block_fpr")
    alarms = []
    for folder in reals.folders(0):
        inside_N = fitted.score(reals.of(0, folder))
        reviewed, blocked = (int((inside_N >= at.threshold).sum()) for at in (review, block))
        alarms.append(FalseAlarms(folder, reviewed, blocked, len(inside_N)))
    return MeasuredSet(name, asked, review, block, tuple(alarms))


def bundle_stem(export: ExportConfig) -> str:
    """What the ids of a bundle's parts begin with: an id holds no plus, which a version may."""
    return f"{export.name}-{export.version}".replace("+", "-")


def threshold_sets(stem: str, sets: Sequence[MeasuredSet]) -> tuple[ThresholdSet, ...]:
    """As the manifest holds them."""
    return tuple(
        ThresholdSet(
            id=f"{stem}-{one.name}", review=one.review, block=one.block, measured_on=one.measured_on
        )
        for one in sets
    )


def points_table(sets: Sequence[MeasuredSet]) -> str:
    """Each threshold with the rate asked for and the rate measured, a row each."""
    rows = []
    for one in sets:
        asked = {"review": one.asked.review_fpr, "block": one.asked.block_fpr}
        for band, point in one.points().items():
            found = f"{point.fpr:.2%} [{point.fpr_ci_low:.2%}, {point.fpr_ci_high:.2%}]"
            asked_of = (f"{asked[band]:.2%}", str(point.n_real))
            rows.append((one.name, band, f"{point.threshold:.4f}", *asked_of, found))
    return grid(("set", "band", "score >=", "asked at most", "of", "false positives"), rows)


def alarms_table(sets: Sequence[MeasuredSet]) -> str:
    """Each folder's false alarms, a column for each threshold of each set; none where it was not measured."""
    head = ["source", "n", *(f"{one.name} {band}" for one in sets for band in one.points())]
    by_set = [{alarms.folder: alarms for alarms in one.false_alarms} for one in sets]
    sizes = {alarms.folder: alarms.n for found in by_set for alarms in found.values()}
    rows = []
    for folder, count in sizes.items():
        found = [one.get(folder) for one in by_set]
        cells = [("", "") if one is None else (str(one.review), str(one.block)) for one in found]
        rows.append((folder, str(count), *(cell for pair in cells for cell in pair)))
    return grid(head, rows)
