"""Robustness curves: AUC, and what the review threshold does, against each kind of change.

In: the points of an evaluation. Out: a figure. No errors.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.config.evaluation import OPERATION
from trainer.evaluation.plots.style import FAINT, FAKE, REAL, THIRD, new_figure, plain
from trainer.evaluation.robustness import Point

_KINDS = {
    "jpeg": "JPEG quality",
    "webp": "WebP quality",
    "resize": "resized by",
    "blur": "blur, sigma in px",
}
_FALLING = {"jpeg", "webp"}  # drawn from the best quality to the worst
_NATIVE_AT = {"jpeg": None, "webp": None, "resize": 1.0, "blur": 0.0}


def robustness_figure(points: Sequence[Point]) -> Figure | None:
    """A column for each kind of change and one for chains; None where nothing was changed."""
    native, changed = points[0], points[1:]
    groups: dict[str, list[tuple[str, Point]]] = {}
    for one in changed:
        match = OPERATION.fullmatch(one.change)
        kind = match["name"] if match and match["name"] in _KINDS else "chains"
        groups.setdefault(kind, []).append((match["value"] if match else one.change, one))
    if not groups:
        return None
    with_rates = bool(native.caught)
    rows = 2 if with_rates else 1
    widths = [2.2 if kind != "chains" else 2.8 for kind in groups]
    figure = new_figure(sum(widths), 2.6 * rows + 1.3)
    panels = figure.subplots(
        rows, len(groups), squeeze=False, sharey="row", width_ratios=widths, sharex="col"
    )
    for column, (kind, members) in enumerate(groups.items()):
        labels, ordered = _ordered(kind, members, native)
        _auc(panels[0, column], ordered)
        if with_rates:
            _rates(panels[1, column], ordered)
        _ticks(panels[-1, column], kind, labels)
    panels[0, 0].set_ylabel("AUC", fontsize=9)
    _legend_above(panels[0, 0])
    if with_rates:
        panels[1, 0].set_ylabel("share at or above review", fontsize=9)
        _legend_above(panels[1, 0])
    return figure


def _legend_above(axes: Axes) -> None:
    """Clear of the curves, and no wider than its panel: a wider one would push the next aside."""
    axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)


def _ordered(
    kind: str, members: Sequence[tuple[str, Point]], native: Point
) -> tuple[list[str], list[Point]]:
    if kind == "chains":
        return ["native", *(label.replace("+", "\n") for label, _ in members)], [
            native,
            *(one for _, one in members),
        ]
    at = _NATIVE_AT[kind]
    placed = [(float(label), label, one) for label, one in members]
    placed.sort(key=lambda item: item[0], reverse=kind in _FALLING)
    if at is None:
        placed.insert(0, (0.0, "native", native))
    else:
        placed = sorted([*placed, (at, "native", native)], key=lambda item: item[0])
    return [label for _, label, _ in placed], [one for *_, one in placed]


def _auc(axes: Axes, points: Sequence[Point]) -> None:
    plain(axes)
    at = range(len(points))
    means = [one.table.mean["auc"] for one in points]
    below = [one.value - one.low for one in means]
    above = [one.high - one.value for one in means]
    axes.errorbar(
        at,
        [one.value for one in means],
        yerr=[below, above],
        color=REAL,
        marker="o",
        markersize=4,
        capsize=2,
        linewidth=1.2,
        label="mean of families, 95 %",
    )
    worst = [one.table.of(one.table.worst).figures["auc"].value for one in points]
    axes.plot(at, worst, color=FAKE, marker="v", markersize=4, linestyle=":", label="worst family")
    axes.axhline(0.5, color=FAINT, linewidth=0.8)


def _rates(axes: Axes, points: Sequence[Point]) -> None:
    plain(axes)
    at = range(len(points))
    caught = [one.caught["review"] for one in points]
    alarms = [next(rate for rate in one.alarms if rate.threshold == "review") for one in points]
    axes.plot(
        at, caught, color=THIRD, marker="s", markersize=4, label="generated (mean of families)"
    )
    axes.errorbar(
        at,
        [one.value for one in alarms],
        yerr=[
            [one.value - one.low for one in alarms],
            [one.high - one.value for one in alarms],
        ],
        color=REAL,
        marker="o",
        markersize=4,
        capsize=2,
        linestyle="--",
        linewidth=1.2,
        label="real, 95 %",
    )
    axes.set_ylim(0, 1)


def _ticks(axes: Axes, kind: str, labels: Sequence[str]) -> None:
    axes.set_xticks(range(len(labels)), labels, fontsize=7)
    axes.tick_params(axis="x", rotation=0 if kind == "chains" else 45)
    axes.set_xlabel(_KINDS.get(kind, "chains of changes"), fontsize=9)
    axes.margins(x=0.12)
