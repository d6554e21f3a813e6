"""report.md, its plots, and report.json: what a study found, in words, tables and plain values.

In: the study, its results, where they are. Out: the files. Errors: those of the export whose cost
is measured. Nothing is claimed of rows that have not run: they are named.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from engines.runtime.machine import processor_name
from trainer.config.study import Gate, RowConfig, StudyConfig
from trainer.study.analysis import Logits
from trainer.study.cost import Cost
from trainer.study.findings import Key, Repeated, RowFindings, repeated, row_findings
from trainer.study.grid import StudyError, option, row_cells
from trainer.study.plots import curve_plot, family_plot
from trainer.study.results import CellRecord
from trainer.study.run import Plan
from trainer.study.words import cells_section, cost_section, head, row_section

REPORT, DATA = "report.md", "report.json"


@dataclass(frozen=True)
class Provenance:
    """Where the figures come from."""

    written_at: str
    commits: tuple[str, ...]
    teachers: dict[str, tuple[str, ...]]  # by variant: more than one is a warning
    data_digests: dict[str, tuple[str, ...]]  # by fold
    processors: dict[str, tuple[str, ...]]  # by fold and seed: more than one is a warning
    machine: str


def write_report(
    study: StudyConfig,
    plan: Plan,
    records: Mapping[Key, CellRecord],
    cost: Cost,
    output: Path,
) -> Path:
    """Write everything; returns the path of report.md."""
    reader = _Reader(output)
    rows = [
        row_findings(study, row, records, reader.logits, _curve(plan, row)) for row in study.rows
    ]
    told = repeated(rows)
    plots = {row.row: _plots(row, told, output) for row in rows}
    origin = provenance(records)
    refused = {cell.row: reason for cell, reason in plan.refused.items()}
    parts = [head(study, rows, told, origin.written_at, origin.machine, origin.commits)]
    parts += [_warnings(origin)]
    parts += [row_section(study, row, told, plots[row.row], refused.get(row.row)) for row in rows]
    parts += [cost_section(cost), cells_section(study, list(records.values()))]
    content = {
        "provenance": asdict(origin),
        "study": study.model_dump(mode="json", exclude={"base"}),
        "rows": [asdict(row) for row in rows],
        "cost": cost.model_dump(mode="json"),
        "cells": [one.model_dump(mode="json") for one in records.values()],
    }
    _write(output / DATA, json.dumps(content, indent=2) + "\n")
    _write(output / REPORT, "\n\n".join(part for part in parts if part) + "\n")
    return output / REPORT


def provenance(records: Mapping[Key, CellRecord]) -> Provenance:
    """What the cells say of where they come from."""
    done = [one for one in records.values() if one.status == "done"]
    teachers: dict[str, set[str]] = {}
    data: dict[str, set[str]] = {}
    processors: dict[str, set[str]] = {}
    for one in done:
        if one.processor:
            cell = f"{'+'.join(one.fold)}/seed{one.seed}"
            processors.setdefault(cell, set()).add(one.processor)
        if one.teacher_id not in {"", "none"}:
            teachers.setdefault(one.variant, set()).add(one.teacher_id)
        data.setdefault("+".join(one.fold), set()).add(one.stamp.data_digest)
    return Provenance(
        datetime.now(UTC).isoformat(timespec="minutes"),
        tuple(sorted({one.code_commit[:9] for one in done})),
        {variant: tuple(sorted(ids)) for variant, ids in teachers.items()},
        {fold: tuple(sorted(digests)) for fold, digests in data.items()},
        {cell: tuple(sorted(names)) for cell, names in processors.items()},
        _machine(),
    )


def _machine() -> str:
    return f"{os.cpu_count()} CPUs ({processor_name()}), torch {torch.__version__}"


def _warnings(origin: Provenance) -> str:
    several = [variant for variant, ids in origin.teachers.items() if len(ids) > 1]
    warnings = [
        f"**Warning:** the cells of `{one}` had different teachers; they are no single variant."
        for one in several
    ]
    mixed = [cell for cell, names in origin.processors.items() if len(names) > 1]
    if mixed:
        warnings.append(
            f"**Warning:** cells of one fold and seed were trained on different processors ("
            f"{', '.join(mixed)}): a difference between them is also what another order of rounding "
            "makes of a training, which may be as much as another seed."
        )
    return "\n\n".join(warnings)


def _curve(plan: Plan, row: RowConfig) -> dict[str, float]:
    """Where each variant lies on the row's curve; the baseline need not."""
    if not row.curve:
        return {}
    return {
        one.cell.variant: option(one.task.config, row.curve)
        for one in plan.planned
        if one.cell.variant in row.variants
    }


def check_curves(study: StudyConfig, plan: Plan) -> None:
    """A curve must be a number of every variant: better said before hours of training."""
    for row in study.rows:
        _curve(plan, row)


def _plots(row: RowFindings, told: Repeated, output: Path) -> list[str]:
    names = []
    for one in row.comparisons:
        if one.difference and (row.row, one.view) not in told:
            names.append(f"{row.row}-{one.view.replace(', ', '-').replace(' ', '-')}.png")
            family_plot(one, output / names[-1])
    if row.curve and curve_plot(row, output / f"{row.row}-curve.png"):
        names.insert(0, f"{row.row}-curve.png")
    return names


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(text)
    partial.replace(path)


class _Reader:
    """Reads the logits of cells, each file once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, dict[str, np.ndarray]] = {}

    def logits(self, record: CellRecord, gate: Gate, condition: str) -> Logits:
        """The test logits of a cell by image."""
        if record.logits not in self._read:
            self._read[record.logits] = self._load(record)
        arrays = self._read[record.logits]
        values = arrays[f"{gate}_{condition}"]
        return dict(zip(arrays["key"].tolist(), values.tolist(), strict=True))

    def _load(self, record: CellRecord) -> dict[str, np.ndarray]:
        path = self._folder / record.logits
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError) as error:
            raise StudyError(
                f"{path} cannot be read ({error}): take the line of {record.name} out of "
                "results.jsonl, so that the cell runs again"
            ) from error


def rows_done(
    study: StudyConfig, records: Mapping[Key, CellRecord]
) -> Sequence[tuple[str, int, int]]:
    """(row, cells done, cells expected)."""
    found = []
    for row in study.rows:
        keys = {cell.key for cell in row_cells(study, row)}
        done = sum(key in keys and one.status == "done" for key, one in records.items())
        found.append((row.name, done, len(keys)))
    return found
