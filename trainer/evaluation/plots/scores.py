"""The scores of either class, and whether they mean what they say.

In: the logits, what is shipped. Out: figures. No errors.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.evaluation.families import Scored
from trainer.evaluation.plots.style import FAINT, FAKE, REAL, new_figure, plain
from trainer.evaluation.reliability import Reliability
from trainer.evaluation.shipped import Shipped, points

_BINS = 25


def scores_figure(scored: dict[str, Scored], shipped: Shipped | None) -> Figure:
    """Histograms of the scores by class, native above aligned; of logits before calibration.

    The default threshold set alone is marked: more lines would hide the bars.
    """
    figure = new_figure(6.5, 2.3 * len(scored) + 0.3)
    panels = figure.subplots(len(scored), 1, squeeze=False, sharex=True)
    every = np.concatenate([one.logit_N for one in scored.values()])
    values = shipped.score(every) if shipped else every.astype(np.float64)
    edges = np.linspace(0, 1, _BINS + 1) if shipped else np.histogram_bin_edges(values, _BINS)
    for axes, (condition, one) in zip(panels.flat, scored.items(), strict=True):
        plain(axes)
        for label, name, colour, hatch in ((0, "real", REAL, ""), (1, "generated", FAKE, "//")):
            logit_N = one.of(label)
            shown = shipped.score(logit_N) if shipped else logit_N
            axes.hist(
                shown,
                bins=list(edges),
                weights=np.full(len(shown), 1 / max(1, len(shown))),
                color=colour,
                alpha=0.55,
                hatch=hatch,
                edgecolor=colour,
                label=f"{name} (n = {len(shown)})",
            )
        if shipped:
            _mark_thresholds(axes, shipped)
        axes.set_title(condition, fontsize=9, loc="left")
        axes.legend(fontsize=7, loc="upper center")
        axes.set_ylabel("share of the class", fontsize=8)
    panels[-1, 0].set_xlabel("score" if shipped else "logit (not calibrated yet)", fontsize=9)
    return figure


def _mark_thresholds(axes: Axes, shipped: Shipped) -> None:
    for threshold, point in points(shipped.default).items():
        axes.axvline(point.threshold, color="black", linewidth=1, linestyle="--")
        axes.annotate(
            threshold,
            (point.threshold, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3, -3),
            textcoords="offset points",
            rotation=90,
            fontsize=7,
            ha="right",
            va="top",
        )


def reliability_figure(found: Reliability) -> Figure:
    """The share of generated images against the score, with the images of every bin below."""
    figure = new_figure(4.6, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    plain(upper)
    plain(lower)
    upper.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1, label="as promised")
    at = [one.mean_score for one in found.bins]
    share = [one.fake_share for one in found.bins]
    upper.plot(at, share, color=REAL, marker="o", markersize=5, linewidth=1.4, label="measured")
    upper.set_ylabel("share of generated images\n(either class weighing one half)", fontsize=9)
    upper.set_title(f"ECE {found.ece:.3f}, NLL {found.nll:.3f} (n = {found.n})", fontsize=9)
    upper.set_ylim(-0.03, 1.03)
    upper.legend(fontsize=8, loc="upper left")
    reals = [one.n_real for one in found.bins]
    fakes = [one.n_fake for one in found.bins]
    lower.bar(at, reals, width=0.04, color=REAL, label="real")
    lower.bar(at, fakes, width=0.04, bottom=reals, color=FAKE, hatch="//", label="generated")
    lower.set_ylabel("images", fontsize=9)
    lower.set_xlabel("score", fontsize=9)
    lower.set_xlim(-0.03, 1.03)
    lower.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    return figure
