"""The ROC of every family, a panel each: fifteen lines in one panel nobody can tell apart.

In: the logits, native and aligned. Out: a figure. No errors.
"""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from trainer.evaluation.evidence import Evidence
from trainer.evaluation.families import Scored
from trainer.evaluation.plots.style import FAINT, FAKE, REAL, new_figure, plain

_COLUMNS = 4
_PANEL_IN = 2.5
_LINES = {"native": (REAL, "-"), "aligned": (FAKE, "--")}


def roc_figure(evidence: Evidence) -> Figure:
    """A panel for each family with both conditions."""
    families = [one.family for one in evidence.families[0].families]
    columns = min(_COLUMNS, len(families))
    rows = math.ceil(len(families) / columns)
    figure = new_figure(_PANEL_IN * max(2, columns), _PANEL_IN * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for index, axes in enumerate(panels.flat):
        if index < len(families):
            _panel(axes, evidence, families[index])
            # Where no panel is below, the shared axis would go without its numbers.
            axes.tick_params(labelbottom=index + columns >= len(families))
        else:
            axes.set_visible(False)
    figure.supxlabel("false-positive rate (real images taken for generated)", fontsize=9)
    figure.supylabel("true-positive rate", fontsize=9)
    return figure


def _panel(axes: Axes, evidence: Evidence, family: str) -> None:
    plain(axes)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    n_fake = 0
    for table in evidence.families:
        found = table.of(family)
        colour, line = _LINES[table.condition]
        fpr, tpr = _curve(evidence.scored[table.condition], family)
        label = f"{table.condition} {found.figures['auc'].value:.3f}"
        axes.plot(fpr, tpr, color=colour, linestyle=line, linewidth=1.4, label=label)
        n_fake = found.n_fake
    axes.set_title(f"{family} (n = {n_fake})", fontsize=9)
    axes.set_aspect("equal")
    axes.legend(fontsize=7, loc="lower right", title="AUC", title_fontsize=7, framealpha=0.9)


def _curve(scored: Scored, family: str) -> tuple[np.ndarray, np.ndarray]:
    real_N, fake_M = scored.of(0), scored.of(1, family)
    label = np.concatenate([np.zeros(len(real_N)), np.ones(len(fake_M))])
    fpr, tpr, _ = roc_curve(label, np.concatenate([real_N, fake_M]))
    return fpr, tpr
