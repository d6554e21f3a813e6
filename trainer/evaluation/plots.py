"""The pictures of a report, drawn without a display and without global state.

Colours are those of Okabe and Ito (2008), which the colour-blind can tell apart; no meaning is
carried by colour alone.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve
from torch.nn import functional

from trainer.config import OPERATION
from trainer.data.augment import center_crop
from trainer.data.dataset import Picture
from trainer.detector import Detector
from trainer.evaluation.calibration import Deployment, Reliability, ThresholdRate, points
from trainer.evaluation.metrics import Estimate
from trainer.evaluation.run import Evaluation, RobustnessPoint
from trainer.evaluation.scoring import ScoredPictures

REAL: Final = "#0072B2"  # blue
FAKE: Final = "#D55E00"  # vermilion
THIRD: Final = "#009E73"  # bluish green
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


def _legend_above(axes: Axes) -> None:
    # Inside the panel, a legend may cover a bar or a threshold's name.
    axes.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)


# The ROC of every family, a panel each: nobody can tell fifteen lines in one panel apart.
_COLUMNS, _PANEL_IN = 4, 2.5
_LINES = {"native": (REAL, "-"), "aligned": (FAKE, "--")}


def roc_figure(evaluation: Evaluation) -> Figure:
    """A panel for each family with both conditions."""
    families = [row.family for row in evaluation.families[0].families]
    columns = min(_COLUMNS, len(families))
    rows = math.ceil(len(families) / columns)
    figure = new_figure(_PANEL_IN * max(2, columns), _PANEL_IN * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for index, axes in enumerate(panels.flat):
        if index < len(families):
            _roc_panel(axes, evaluation, families[index])
            # Where no panel is below, the shared axis would go without its numbers.
            axes.tick_params(labelbottom=index + columns >= len(families))
        else:
            axes.set_visible(False)
    figure.supxlabel("false-positive rate (real images taken for generated)", fontsize=9)
    figure.supylabel("true-positive rate", fontsize=9)
    return figure


def _roc_panel(axes: Axes, evaluation: Evaluation, family: str) -> None:
    plain(axes)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    for table in evaluation.families:
        colour, line = _LINES[table.condition]
        scored = evaluation.scored[table.condition]
        real_N, fake_M = scored.of(0), scored.of(1, family)
        label = np.concatenate([np.zeros(len(real_N)), np.ones(len(fake_M))])
        fpr, tpr, _ = roc_curve(label, np.concatenate([real_N, fake_M]))
        text = f"{table.condition} {table.of(family).figures['auc'].value:.3f}"
        axes.plot(fpr, tpr, color=colour, linestyle=line, linewidth=1.4, label=text)
    axes.set_title(f"{family} (n = {evaluation.families[0].of(family).n_fake})", fontsize=9)
    axes.set_aspect("equal")
    axes.legend(fontsize=7, loc="lower right", title="AUC", title_fontsize=7, framealpha=0.9)


_SCORE_BINS = 25


def scores_figure(scored: Mapping[str, ScoredPictures], deployed: Deployment | None) -> Figure:
    """Histograms of the scores by class, native above aligned; of logits before calibration.

    The thresholds of the default set alone are marked: more lines would hide the bars.
    """
    figure = new_figure(6.5, 2.5 * len(scored) + 0.3)
    panels = figure.subplots(len(scored), 1, squeeze=False, sharex=True)
    every = np.concatenate([one.logit_N for one in scored.values()])
    values = deployed.score(every) if deployed else every.astype(np.float64)
    edges = np.histogram_bin_edges(values, _SCORE_BINS, (0, 1) if deployed else None)
    for axes, (condition, one) in zip(panels.flat, scored.items(), strict=True):
        plain(axes)
        for label, name, colour, hatch in ((0, "real", REAL, ""), (1, "generated", FAKE, "//")):
            logit_N = one.of(label)
            shown = deployed.score(logit_N) if deployed else logit_N
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
        if deployed:
            _mark_thresholds(axes, deployed)
        axes.set_title(condition, fontsize=9, loc="left")
        _legend_above(axes)
        axes.set_ylabel("share of the class", fontsize=8)
    panels[-1, 0].set_xlabel("score" if deployed else "logit (not calibrated yet)", fontsize=9)
    return figure


def _mark_thresholds(axes: Axes, deployed: Deployment) -> None:
    for band, point in points(deployed.default).items():
        axes.axvline(point.threshold, color="black", linewidth=1, linestyle="--")
        axes.annotate(
            band,
            (point.threshold, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3, -3),
            textcoords="offset points",
            rotation=90,
            fontsize=7,
            ha="right",
            va="top",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )


def reliability_figure(reliability: Reliability) -> Figure:
    """The share of generated images against the score, with the images of every bin below."""
    figure = new_figure(4.6, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    plain(upper)
    plain(lower)
    upper.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1, label="as promised")
    at, share, reals, fakes = np.array([astuple(each) for each in reliability.bins]).T
    upper.plot(at, share, color=REAL, marker="o", markersize=5, linewidth=1.4, label="measured")
    upper.set_ylabel("share of generated images\n(either class weighing one half)", fontsize=9)
    title = f"ECE {reliability.ece:.3f}, NLL {reliability.nll:.3f} (n = {reliability.n})"
    upper.set_title(title, fontsize=9)
    upper.set_ylim(-0.03, 1.03)
    upper.legend(fontsize=8, loc="upper left")
    lower.bar(at, reals, width=0.04, color=REAL, label="real")
    lower.bar(at, fakes, width=0.04, bottom=reals, color=FAKE, hatch="//", label="generated")
    lower.set_ylabel("images", fontsize=9)
    lower.set_xlabel("score", fontsize=9)
    lower.set_xlim(-0.03, 1.03)
    _legend_above(lower)
    return figure


_KINDS = {
    "jpeg": "JPEG quality",
    "webp": "WebP quality",
    "resize": "resized by",
    "blur": "blur, sigma in px",
}
_FALLING = {"jpeg", "webp"}  # drawn from the best quality to the worst
_NATIVE_AT = {"jpeg": math.inf, "webp": math.inf, "resize": 1.0, "blur": 0.0}
_CHAINS = "chains"


def robustness_figure(robustness: Sequence[RobustnessPoint]) -> Figure | None:
    """A column for each kind of change and one for chains; None where nothing was changed."""
    native = robustness[0]
    groups: dict[str, list[tuple[str, RobustnessPoint]]] = {}
    for point in robustness[1:]:
        match = OPERATION.fullmatch(point.change)
        kind = match["name"] if match and match["name"] in _KINDS else _CHAINS
        groups.setdefault(kind, []).append((match["value"] if match else point.change, point))
    if not groups:
        return None
    with_rates = bool(native.caught)
    rows = 2 if with_rates else 1
    widths = [2.8 if kind == _CHAINS else 2.2 for kind in groups]
    figure = new_figure(sum(widths), 2.6 * rows + 1.3)
    panels = figure.subplots(
        rows, len(groups), squeeze=False, sharey="row", width_ratios=widths, sharex="col"
    )
    for column, (kind, members) in enumerate(groups.items()):
        labels, ordered = zip(*_ordered(kind, members, native), strict=True)
        _auc_curve(panels[0, column], ordered)
        if with_rates:
            _rate_curves(panels[1, column], ordered)
        axes = panels[-1, column]
        axes.set_xticks(range(len(labels)), labels, fontsize=7)
        axes.tick_params(axis="x", rotation=0 if kind == _CHAINS else 45)
        axes.set_xlabel(_KINDS.get(kind, "chains of changes"), fontsize=9)
        axes.margins(x=0.12)
    panels[0, 0].set_ylabel("AUC", fontsize=9)
    if with_rates:
        panels[1, 0].set_ylabel("share at or above review", fontsize=9)
    for axes in panels[:, 0]:
        # Clear of the curves, and no wider than its panel: a wider one would push the next aside.
        axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


def _ordered(
    kind: str, members: Sequence[tuple[str, RobustnessPoint]], native: RobustnessPoint
) -> list[tuple[str, RobustnessPoint]]:
    """Labels and points of a panel, the untouched pictures among them."""
    if kind == _CHAINS:
        chains = [(label.replace("+", "\n"), point) for label, point in members]
        return [("native", native), *chains]
    return sorted(
        [*members, ("native", native)],
        key=lambda item: _NATIVE_AT[kind] if item[1] is native else float(item[0]),
        reverse=kind in _FALLING,
    )


def _auc_curve(axes: Axes, ordered: Sequence[RobustnessPoint]) -> None:
    means = [point.table.mean["auc"] for point in ordered]
    _intervals(axes, means, "mean of families, 95 %", "-")
    worst = [point.table.of(point.table.worst).figures["auc"].value for point in ordered]
    axes.plot(worst, color=FAKE, marker="v", markersize=4, linestyle=":", label="worst family")
    axes.axhline(0.5, color=FAINT, linewidth=0.8)


def _rate_curves(axes: Axes, ordered: Sequence[RobustnessPoint]) -> None:
    caught = [point.caught["review"] for point in ordered]
    axes.plot(caught, color=THIRD, marker="s", markersize=4, label="generated (mean of families)")
    alarms = [rate for point in ordered for rate in point.alarms if rate.threshold == "review"]
    _intervals(axes, alarms, "real, 95 %", "--")
    axes.set_ylim(0, 1)


def _intervals(
    axes: Axes, figures: Sequence[Estimate | ThresholdRate], label: str, line: str
) -> None:
    plain(axes)
    value, low, high = np.array([(each.value, each.low, each.high) for each in figures]).T
    axes.errorbar(
        range(len(value)),
        value,
        yerr=[value - low, high - value],
        color=REAL,
        marker="o",
        markersize=4,
        capsize=2,
        linestyle=line,
        linewidth=1.2,
        label=label,
    )


_CELL_IN = 1.5
_LOUDEST = 99.0  # percentile over all maps: single pixels must not set the scale
_LONGEST_NAME = 22


@dataclass(frozen=True)
class AttentionMap:
    """A central crop [S, S, 3] uint8 and the magnitude of the predicted noise there, [S, S]."""

    key: str
    label: int
    crop_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    energy_HW: NDArray[np.float32]  # noqa: N815  the suffix is the tensor's shape


def spread(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """Half real, half generated; of different folders as far as there are any."""
    chosen = []
    for label in (0, 1):
        turns: Counter[str] = Counter()
        queue = []
        for picture in (each for each in pictures if each.source.label == label):
            folder = picture.source.folder
            queue.append((turns[folder], folder, picture))
            turns[folder] += 1
        queue.sort(key=lambda place: place[:2])
        chosen += [picture for *_, picture in queue[: count // 2]]
    return chosen


@torch.inference_mode()
def attention_maps(
    detector: Detector, pictures: Sequence[Picture], crop_px: int
) -> list[AttentionMap]:
    """The mean over channels of |eps_hat|, in units of the target's standard deviation."""
    maps = []
    for picture in pictures:
        crop_HWC = center_crop(picture.pixels_HWC, crop_px)
        eps_1CHW = detector.predict_noise(torch.from_numpy(crop_HWC.copy())[None])
        energy = eps_1CHW.float().abs().mean(dim=1, keepdim=True)
        # The noise of a latent teacher is coarser than the picture.
        energy_HW = functional.interpolate(energy, size=(crop_px, crop_px))[0, 0].cpu().numpy()
        maps.append(AttentionMap(picture.source.key, picture.source.label, crop_HWC, energy_HW))
    return maps


def attention_figure(maps: Sequence[AttentionMap]) -> Figure:
    """Each crop above its map; all maps share one scale, so that classes can be compared.

    The figure **shows pictures of the evaluated set**.
    """
    figure = new_figure(_CELL_IN * len(maps) + 0.8, 2 * _CELL_IN + 0.9)
    panels = figure.subplots(2, len(maps), squeeze=False)
    top = float(np.percentile([one.energy_HW for one in maps], _LOUDEST))
    for column, one in enumerate(maps):
        panels[0, column].imshow(one.crop_HWC)
        shown = panels[1, column].imshow(one.energy_HW, cmap="cividis", vmin=0, vmax=top)
        folder, name = one.key.split("/", 2)[1:]
        short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
        panels[0, column].set_title(
            f"{'generated' if one.label else 'real'}\n{folder}\n{short}", fontsize=7
        )
        for axes in panels[:, column]:
            axes.set_xticks([])
            axes.set_yticks([])
    bar = figure.colorbar(shown, ax=list(panels.flat), shrink=0.8)
    bar.set_label("|predicted noise| in std of the target", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure
