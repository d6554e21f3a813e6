"""What all plots share: a size, colours that the colour-blind can tell apart, how they are saved.

Colours are those of Okabe and Ito (2008); nothing is told by colour alone.
"""

from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

REAL: Final = "#0072B2"  # blue
FAKE: Final = "#D55E00"  # vermilion
THIRD: Final = "#009E73"  # bluish green
FOURTH: Final = "#CC79A7"  # reddish purple
FAINT: Final = "#999999"
_DPI = 120


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure that lays itself out without overlaps."""
    return Figure(figsize=(width_in, height_in), layout="constrained")


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG; returns its path."""
    figure.savefig(path, dpi=_DPI, facecolor="white")
    return path


def plain(axes: Axes) -> None:
    """No box, a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
