"""Attention maps: the predicted noise over the pictures that it was predicted for.

In: maps. Out: a figure that **shows pictures of the evaluated set**. No errors.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from trainer.evaluation.attention import AttentionMap
from trainer.evaluation.plots.style import new_figure

_CELL_IN = 1.5
_LOUDEST = 99.0  # percentile over all maps: single pixels must not set the scale
_LONGEST_NAME = 22


def attention_figure(maps: Sequence[AttentionMap]) -> Figure:
    """Each crop above its map; all maps share one scale, so that classes can be compared."""
    figure = new_figure(_CELL_IN * len(maps) + 0.8, 2 * _CELL_IN + 0.9)
    panels = figure.subplots(2, len(maps), squeeze=False)
    top = float(np.percentile([one.energy_HW for one in maps], _LOUDEST))
    for column, one in enumerate(maps):
        panels[0, column].imshow(one.crop_HWC)
        shown = panels[1, column].imshow(one.energy_HW, cmap="cividis", vmin=0, vmax=top)
        folder, name = one.key.split("/", 2)[1:]
        panels[0, column].set_title(
            f"{'generated' if one.label else 'real'}\n{folder}\n{_short(name)}", fontsize=7
        )
        for axes in panels[:, column]:
            axes.set_xticks([])
            axes.set_yticks([])
    bar = figure.colorbar(shown, ax=list(panels.flat), shrink=0.8)
    bar.set_label("|predicted noise| in std of the target", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
