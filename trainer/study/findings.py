"""From the cells that are done to what each row of the study found.

In: the study, its records, the logits of each. Out: ``RowFindings``, plain values. No errors.

Only cells that are there on both sides, for the same fold and seed, are compared. In the claim's
row (the first) a run that learnt too little of the noise counts for nothing, on either side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trainer.config.study import Gate, RowConfig, StudyConfig
from trainer.study.analysis import Difference, Logits, PairedRun, Spread, difference, spread
from trainer.study.grid import row_cells
from trainer.study.results import CellRecord, FamilyFigure

CONDITIONS = ("native", "aligned")
Group = TypeVar("Group")
Key = tuple[str, tuple[str, ...], int]
LogitsOf = Callable[[CellRecord, Gate, str], Logits]


@dataclass(frozen=True)
class View:
    """A variant as it is judged: with the gate off or on."""

    variant: str
    gate: Gate

    @property
    def name(self) -> str:
        """The variant's name, and a word where the gate is on."""
        return self.variant if self.gate == "off" else f"{self.variant}, gate on"


@dataclass(frozen=True)
class Summary:
    """A view's own figures over the cells that are done."""

    view: str
    done: int
    expected: int
    unlearnt: int  # runs that do not count as ANL
    explained: Spread | None
    mean_auc: dict[str, Spread]  # by condition: the mean over families, then over seeds
    worst_auc: dict[str, tuple[str, float]]  # by condition: the family, its mean over seeds
    wall_s: float  # the mean of a cell
    curve: float | None  # where the view lies on the row's curve


@dataclass(frozen=True)
class Comparison:
    """A view less the baseline."""

    view: str
    baseline: str
    pairs: int  # cells that were compared
    expected: int
    curve: float | None
    difference: dict[str, Difference]  # by condition


@dataclass(frozen=True)
class RowFindings:
    """One row of the study."""

    row: str
    question: str
    is_claim: bool
    curve: str
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]


Repeated = Mapping[tuple[str, str], str]  # (row, view) -> the earlier row that has the very same


def repeated(rows: Sequence[RowFindings]) -> Repeated:
    """Which comparisons an earlier row has made already, with the same outcome."""
    made: list[tuple[str, Comparison]] = []
    found = {}
    for row in rows:
        for one in row.comparisons:
            before = [name for name, other in made if one.difference and _same(one, other)]
            if before:
                found[row.row, one.view] = before[0]
            made.append((row.row, one))
    return found


def _same(one: Comparison, other: Comparison) -> bool:
    names = (one.view, one.baseline) == (other.view, other.baseline)
    return names and one.difference == other.difference


def unlearnt(record: CellRecord, study: StudyConfig) -> bool:
    """Whether a run was to learn the noise and did not: it does not count as ANL."""
    explained = record.explained_variance
    return record.learns_noise and (explained is None or explained < study.min_explained_variance)


def row_findings(
    study: StudyConfig,
    row: RowConfig,
    records: Mapping[Key, CellRecord],
    logits_of: LogitsOf,
    curves: Mapping[str, float],
) -> RowFindings:
    """What the cells at hand say of a row.

    Args:
        study: the whole study.
        row: one of its rows.
        records: the latest of each cell.
        logits_of: reads a cell's test logits.
        curves: where each variant lies on the row's curve, if it has one.
    """
    is_claim = row == study.rows[0]
    done = _done(study, row, records)
    views = _views(study, row)
    baseline = views[0]
    counted = {key: one for key, one in done.items() if not (is_claim and unlearnt(one, study))}
    expected = len(study.row_folds(row)) * len(study.row_seeds(row))

    return RowFindings(
        row.name,
        row.question,
        is_claim,
        row.curve,
        tuple(
            _summary(study, view, list(done.values()), expected, curves.get(view.variant))
            for view in views
        ),
        tuple(
            Comparison(
                view.name,
                baseline.name,
                len(_matched(view, baseline, counted)),
                expected,
                curves.get(view.variant),
                _differences(study, view, baseline, counted, logits_of),
            )
            for view in views[1:]
        ),
    )


def _done(
    study: StudyConfig, row: RowConfig, records: Mapping[Key, CellRecord]
) -> dict[Key, CellRecord]:
    wanted = {cell.key for cell in row_cells(study, row)}
    return {key: one for key, one in records.items() if key in wanted and one.status == "done"}


def _views(study: StudyConfig, row: RowConfig) -> list[View]:
    """The baseline first."""
    return [View(one, gate) for one in row.trained for gate in study.variants[one].gates]


def _summary(
    study: StudyConfig,
    view: View,
    done: Sequence[CellRecord],
    expected: int,
    curve: float | None,
) -> Summary:
    mine = [one for one in done if one.variant == view.variant]
    explained: dict[int, list[float]] = {}
    for one in mine:
        if one.explained_variance is not None:
            explained.setdefault(one.seed, []).append(one.explained_variance)
    return Summary(
        view.name,
        len(mine),
        expected,
        sum(unlearnt(one, study) for one in mine),
        spread(explained) if explained else None,
        {name: spread(of) for name in CONDITIONS if (of := _aucs(view, name, mine, _seed))},
        {name: _worst(by) for name in CONDITIONS if (by := _aucs(view, name, mine, _family))},
        sum(one.wall_s for one in mine) / len(mine) if mine else 0.0,
        curve,
    )


def _seed(record: CellRecord, _figure: FamilyFigure) -> int:
    return record.seed


def _family(_record: CellRecord, figure: FamilyFigure) -> str:
    return figure.family


def _aucs(
    view: View,
    condition: str,
    records: Sequence[CellRecord],
    by: Callable[[CellRecord, FamilyFigure], Group],
) -> dict[Group, list[float]]:
    found: dict[Group, list[float]] = {}
    for record in records:
        for one in record.families:
            if one.gate == view.gate and one.condition == condition:
                found.setdefault(by(record, one), []).append(one.auc)
    return found


def _worst(aucs: Mapping[str, Sequence[float]]) -> tuple[str, float]:
    means = {family: sum(values) / len(values) for family, values in aucs.items()}
    family = min(means, key=lambda one: means[one])
    return family, means[family]


def _matched(
    view: View, baseline: View, records: Mapping[Key, CellRecord]
) -> list[tuple[CellRecord, CellRecord]]:
    """Cells of the view beside the baseline's of the same fold, seed and data."""
    found = []
    for (variant, fold, seed), mine in records.items():
        theirs = records.get((baseline.variant, fold, seed))
        if variant == view.variant and theirs is not None:
            found.append((mine, theirs))
    return found


def _differences(
    study: StudyConfig,
    view: View,
    baseline: View,
    records: Mapping[Key, CellRecord],
    logits_of: LogitsOf,
) -> dict[str, Difference]:
    matched = _matched(view, baseline, records)
    found = {}
    for condition in CONDITIONS:
        runs = [
            PairedRun(
                mine.fold,
                mine.seed,
                logits_of(mine, view.gate, condition),
                logits_of(theirs, baseline.gate, condition),
            )
            for mine, theirs in matched
        ]
        compared = difference(runs, study.resamples) if runs else None
        if compared is not None:
            found[condition] = compared
    return found
