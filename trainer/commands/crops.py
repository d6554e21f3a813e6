"""``crops``: which way to crop serves a trained detector best, in the time that it may take."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console

from engines.bundle.manifest import PreprocessSpec
from engines.runtime.machine import processor_name
from engines.terminal import positive
from trainer.bundle.export import write_onnx
from trainer.bundle.timing import Load, in_turns
from trainer.commands import Environment, Parsers, configured
from trainer.commands.compare import (
    add_splits,
    common_content,
    comparison_data,
    comparison_rows,
    comparison_table,
    write_comparison,
)
from trainer.config import Config
from trainer.detector import Detector
from trainer.evaluation.compare import Alternative, best_row, certainty, crops_name, parse_crops
from trainer.training.finished import exported_graph, load_run

_ALLOWED_PX = 224


@dataclass(frozen=True)
class _TimeRatio:
    """The time of a picture to that of one crop of the allowed size, measured in turns."""

    median: float
    p10: float
    p90: float

    @property
    def fits(self) -> bool:
        """Whether a picture takes no longer than is allowed."""
        return self.median <= 1


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = parsers.add_parser(
        "crops", parents=[common], help="compare ways to crop, by ranking and by time"
    )
    parser.add_argument(
        "policies", nargs="+", metavar="POLICY", help="center:224, grid:96:4, five_crop:96, ..."
    )
    add_splits(parser)
    parser.add_argument(
        "--allowed-px",
        type=positive,
        default=_ALLOWED_PX,
        metavar="PX",
        help="a picture may take as long as one crop of this side by the whole backbone (224)",
    )
    parser.add_argument("--rounds", type=positive, default=100, help="of the timing (100)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Time, rank, print the table, write ``crops.json``."""
    config = configured(options, environment)
    own = config.export.preprocess
    named = [parse_crops(policy) for policy in options.policies]
    specs = [own, *(spec for spec in dict.fromkeys(named) if spec != own)]
    finished = load_run(options.output, config)
    infer = exported_graph(finished.detector(config), config)
    dataset = finished.judging_data(config)
    data = comparison_data(options.split, config, dataset, console)
    ratios = _time_ratios(config, specs, options.allowed_px, options.rounds)
    alternatives = [Alternative(crops_name(spec), infer, spec) for spec in specs]
    rows = comparison_rows(alternatives, data, config, console)
    title = (
        "mean AUC, and the time of a picture to that of one crop of "
        f"{options.allowed_px} px; the first way is the configured one"
    )
    times = [
        [
            (
                "time (80 %)",
                f"{ratio.median:.2f} [{ratio.p10:.2f}, {ratio.p90:.2f}]",
                "" if ratio.fits else "longer than allowed",
            )
        ]
        for ratio in ratios
    ]
    faint = [not ratio.fits for ratio in ratios]
    console.print(comparison_table(title, "crops", rows, times, faint))
    best = best_row(rows, [ratio.fits for ratio in ratios])
    if best is None:
        verdict = "no way to crop is fast enough: name fewer or smaller crops"
    elif best is rows[0]:
        verdict = (
            f"of those within the time, none ranks better than {best.name}, the configured one"
        )
    else:
        verdict = f"of those within the time, {best.name} ranks best, {certainty(best)}"
    console.print(verdict, highlight=False)
    content = common_content(options.split, data, dataset) | {
        "allowed": f"{config.detector.backbone}, one crop of {options.allowed_px} px",
        "processor": processor_name(),
    }
    more: list[dict[str, object]] = [
        {"time": asdict(ratio), "fits": ratio.fits} for ratio in ratios
    ]
    write_comparison(options.output / "crops.json", content, rows, more, console)


def _time_ratios(
    config: Config, specs: Sequence[PreprocessSpec], allowed_px: int, rounds: int
) -> list[_TimeRatio]:
    """Neither weights nor pictures change how long a graph takes: random ones do."""
    torch.manual_seed(0)
    bare = config.detector.model_copy(update={"weights": ""})
    gated = config.export.gate == "on"
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.onnx"
        write_onnx(Detector(bare), whole, allowed_px, gated=False)
        paths = {px: Path(folder) / f"{px}.onnx" for px in {spec.crop_px for spec in specs}}
        for px, path in paths.items():
            write_onnx(Detector(bare), path, px, gated=gated)
        loads = {
            crops_name(spec): Load(paths[spec.crop_px], spec.crop_px, spec.max_crops)
            for spec in specs
        }
        allowed = "allowed"
        took_ms = in_turns({allowed: Load(whole, allowed_px), **loads}, rounds)
    ratios = []
    for spec in specs:
        ratio_R = took_ms[crops_name(spec)] / took_ms[allowed]
        p10, median, p90 = map(float, np.percentile(ratio_R, (10, 50, 90)))
        ratios.append(_TimeRatio(median, p10, p90))
    return ratios
