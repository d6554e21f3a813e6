"""The pictures of a study's report.

In: what a row found. Out: PNG files. No errors. Colours are those of Okabe and Ito (2008), which
the colour-blind tell apart; native and aligned differ in their markers too.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.evaluation.resampling import Interval
from trainer.study.findings import CONDITIONS, Comparison, RowFindings

_COLOURS = {"native": "#0072B2", "aligned": "#D55E00"}
_MARKERS = {"native": "o", "aligned": "s"}
_SHIFT = {"native": -0.14, "aligned": 0.14}  # of a row of the plot: the two lie side by side
_ROW_IN, _MARGIN_IN, _WIDTH_IN = 0.42, 1.4, 7.2
_DPI = 150
_MEAN = "mean of these families"


def family_plot(comparison: Comparison, path: Path) -> None:
    """Each family's difference with its interval, and the mean at the top."""
    first = next(iter(comparison.difference.values()))
    families = sorted(first.families, key=lambda one: first.families[one].value)
    names = [*families, _MEAN]
    figure = Figure(figsize=(_WIDTH_IN, _MARGIN_IN + _ROW_IN * len(names)), dpi=_DPI)
    axes = figure.subplots()
    axes.axvline(0, color="0.4", linewidth=1)
    axes.axhline(len(families) - 0.5, color="0.8", linewidth=1)
    for condition, found in comparison.difference.items():
        intervals = [found.families[one] for one in families] + [found.mean]
        _points(axes, condition, intervals)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(f"AUC of {comparison.view} less AUC of {comparison.baseline}")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"{comparison.view} against {comparison.baseline}: 95 % intervals, "
        f"{comparison.pairs} of {comparison.expected} pairs of runs",
        fontsize=10,
    )
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.set_layout_engine("constrained")
    figure.savefig(path)


def _points(axes: Axes, condition: str, intervals: Sequence[Interval]) -> None:
    values = [one.value for one in intervals]
    axes.errorbar(
        values,
        [index + _SHIFT[condition] for index in range(len(intervals))],
        xerr=_reach(intervals),
        fmt=_MARKERS[condition],
        color=_COLOURS[condition],
        label=condition,
        capsize=2,
        markersize=5,
    )


def _reach(intervals: Sequence[Interval]) -> list[list[float]]:
    """How far the ends are from the value; a percentile may lie on its other side."""
    return [
        [max(0.0, one.value - one.low) for one in intervals],
        [max(0.0, one.high - one.value) for one in intervals],
    ]


def curve_plot(row: RowFindings, path: Path) -> bool:
    """The difference along the row's curve; False where fewer than two points are there."""
    points = sorted(
        (one for one in row.comparisons if one.curve is not None and one.difference),
        key=lambda one: one.curve or 0.0,
    )
    if len(points) < 2:  # noqa: PLR2004  a curve
        return False
    figure = Figure(figsize=(_WIDTH_IN, 3.8), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="0.4", linewidth=1)
    for condition in CONDITIONS:
        there = [one for one in points if condition in one.difference]
        intervals = [one.difference[condition].mean for one in there]
        axes.errorbar(
            [points.index(one) + _SHIFT[condition] / 2 for one in there],
            [one.value for one in intervals],
            yerr=_reach(intervals),
            fmt=f"-{_MARKERS[condition]}",
            color=_COLOURS[condition],
            label=condition,
            capsize=2,
        )
    # Evenly apart: the steps of a sweep grow by factors, from zero on.
    # A point of one pair must not look like one of fifteen.
    axes.set_xticks(
        range(len(points)), [f"{one.curve:g}\n{one.pairs} of {one.expected}" for one in points]
    )
    axes.set_xlabel(f"{row.curve}, and how many pairs of runs are there")
    axes.set_ylabel(f"AUC less that of {points[0].baseline}")
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend()
    figure.savefig(path)
    return True
