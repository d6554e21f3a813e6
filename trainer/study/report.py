"""``report.md``, ``differences.png`` and ``figures.csv``: the results of a study's cells.

A difference is the AUC of a variant less the AUC of its baseline, for the same generators left out
and the same seed. Its interval is Student's t over the seeds, at 95 %.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from scipy.stats import t as student  # type: ignore[import-untyped]  # scipy ships no types

from engines.runtime.machine import processor_name
from trainer.config import RowConfig, StudyConfig
from trainer.evaluation.plots import FAKE, REAL, new_figure, plain, save
from trainer.markdown import render
from trainer.study.cells import EVALUATION, RUN, Cell

CONDITIONS = ("native", "aligned")
_MEAN = "mean"
_FIGURES = ("generator", "condition", "auc", "n_fake", "n_real")
_PAIR = ["fold", "seed", "generator", "condition"]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval; a half width of NaN with less than two seeds."""

    mean: float
    half: float

    def __str__(self) -> str:
        if math.isnan(self.half):
            return f"{self.mean:+.3f}"
        low, high = self.mean - self.half, self.mean + self.half
        return f"{self.mean:+.3f} [{low:+.3f}, {high:+.3f}]"

    @property
    def conclusion(self) -> str:
        """The conclusion that the interval allows."""
        if math.isnan(self.half):
            return "needs two seeds"
        if abs(self.mean) <= self.half:
            return "no difference shown"
        return "better" if self.mean > 0 else "worse"


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline of a row.

    Attributes:
        pairs: pairs of cells that were compared.
        rows: generator (or "mean") -> condition -> difference.
    """

    row: str
    variant: str
    baseline: str
    pairs: int
    rows: dict[str, dict[str, Interval]]

    @property
    def mean(self) -> dict[str, Interval]:
        """The mean over generators by condition; empty where nothing was compared."""
        return self.rows.get(_MEAN, {})


def read_figures(cells: Sequence[Cell]) -> pd.DataFrame:
    """One line for each done cell, generator and condition.

    A run that did not learn enough of its target (``train.min_explained_variance``) has
    ``learnt`` false: it is listed and not compared.
    """
    lines = []
    for cell in cells:
        if not cell.done:
            continue
        run = json.loads((cell.folder / RUN).read_text())
        about = {
            "variant": cell.variant,
            "fold": cell.fold,
            "seed": cell.seed,
            "explained": run["explained_variance"],
            "learnt": run["unlearnt"] is None,
        }
        families = json.loads((cell.folder / EVALUATION).read_text())["families"]
        lines += [about | {name: family[name] for name in _FIGURES} for family in families]
    columns = ["variant", "fold", "seed", "explained", "learnt", *_FIGURES]
    return pd.DataFrame(lines, columns=columns)


def compare(figures: pd.DataFrame, row: RowConfig, variant: str) -> Comparison:
    """Pair the cells of a variant with those of the row's baseline."""
    learnt = figures[figures["learnt"].astype(bool)]
    pairs = learnt[learnt["variant"] == variant].merge(
        learnt[learnt["variant"] == row.baseline], on=_PAIR
    )
    pairs["difference"] = pairs["auc_x"] - pairs["auc_y"]
    rows: dict[str, dict[str, Interval]] = {}
    for condition in CONDITIONS:
        chosen = pairs[pairs["condition"] == condition]
        if chosen.empty:
            continue
        groups = {str(name): group for name, group in chosen.groupby("generator")}
        for name, group in {**groups, _MEAN: chosen}.items():
            by_seed = group.groupby("seed")["difference"].mean()
            rows.setdefault(name, {})[condition] = _interval(by_seed.tolist())
    count = len(pairs[["fold", "seed"]].drop_duplicates())
    return Comparison(row.name, variant, row.baseline, count, rows)


def _interval(values: Sequence[float]) -> Interval:
    series, count = pd.Series(values, dtype=float), len(values)
    half = math.nan
    if count > 1:
        half = float(student.ppf(0.975, count - 1)) * float(series.std()) / math.sqrt(count)
    return Interval(float(series.mean()), half)


def write_report(
    study: StudyConfig,
    rows: Sequence[RowConfig],
    cells: Sequence[Cell],
    failures: Mapping[str, str],
    output: Path,
) -> Path:
    """Write the report of these rows, from the cells that are done.

    Returns:
        The path of report.md.
    """
    figures = read_figures(cells)
    figures.to_csv(output / "figures.csv", index=False)
    comparisons = [
        compare(figures, row, variant)
        for row in rows
        for variant in row.variants
        if variant != row.baseline
    ]
    _plot([item for item in comparisons if item.mean], output / "differences.png")
    text = render(
        "trainer.study",
        "report.md.j2",
        study=study,
        rows=rows,
        comparisons=comparisons,
        variants={cell.variant: _summary(figures, cell.variant) for cell in cells},
        expected=len(study.seeds) * max(len(study.folds), 1),
        failures=failures,
        written_at=datetime.now(UTC).isoformat(timespec="minutes"),
        processor=processor_name(),
        conditions=CONDITIONS,
    )
    (output / "report.md").write_text(text)
    return output / "report.md"


def _summary(figures: pd.DataFrame, variant: str) -> dict[str, object]:
    chosen = figures[figures["variant"] == variant]
    runs = chosen.drop_duplicates(["fold", "seed"])
    auc = chosen.groupby("condition")["auc"].mean()
    return {
        "cells": len(runs),
        "unlearnt": int((~runs["learnt"].astype(bool)).sum()),
        "explained": runs["explained"].astype(float).mean(),
        **{condition: float(auc.get(condition, math.nan)) for condition in CONDITIONS},
    }


def _plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """The mean difference of every comparison with its interval."""
    figure = new_figure(7.5, 1.5 + 0.45 * len(comparisons))
    axes = figure.subplots()
    axes.axvline(0, color="0.4", linewidth=1)
    for condition, colour, marker, shift in (
        ("native", REAL, "o", -0.14),
        ("aligned", FAKE, "s", 0.14),
    ):
        shown = [(place, item.mean[condition]) for place, item in enumerate(comparisons)]
        axes.errorbar(
            [interval.mean for _, interval in shown],
            [place + shift for place, _ in shown],
            xerr=[0 if math.isnan(interval.half) else interval.half for _, interval in shown],
            fmt=marker,
            color=colour,
            label=condition,
        )
    names = [f"{item.row}: {item.variant} - {item.baseline}" for item in comparisons]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)  # the first row is at the top
    axes.set_xlabel("difference of mean AUC, 95 % interval over seeds")
    plain(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save(figure, path)
