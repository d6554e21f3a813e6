"""``crops``: which way to crop serves a trained detector best, in the time that it may take.

Graphs are timed in turns, on one thread of ONNX Runtime, so that whatever else the machine does
slows each of them alike: the ratio of two times is worth more than either (docs/adr/0014).
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.console import Console

from engines.bundle.manifest import PreprocessSpec
from engines.runtime.machine import processor_name
from engines.terminal import positive
from trainer.bundle.export import write_onnx
from trainer.cli import Environment, add_common, configured
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
from trainer.evaluation.compare import (
    Alternative,
    ComparisonRow,
    best_row,
    certainty,
    crops_name,
    parse_crops,
)
from trainer.training.checkpoint import exported_graph, load_run

_ALLOWED_PX = 224
_WARM_UP_ROUNDS = 5


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

    def line(self) -> tuple[str, str, str]:
        """For the table."""
        shown = f"{self.median:.2f} [{self.p10:.2f}, {self.p90:.2f}]"
        return "time (80 %)", shown, "" if self.fits else "longer than allowed"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_common(parser)
    parser.add_argument(
        "policies", nargs="+", metavar="POLICY", help="center:224, grid:96:4, five_crop:96, ..."
    )
    add_splits(parser)
    parser.add_argument(
        "--allowed-px",
        type=positive,
        default=_ALLOWED_PX,
        metavar="PX",
        help="time limit of an image: that of one crop with this side (224)",
    )
    parser.add_argument("--rounds", type=positive, default=100, help="rounds of timing (100)")


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
    faint = [not ratio.fits for ratio in ratios]
    times = [[ratio.line()] for ratio in ratios]
    console.print(comparison_table(title, "crops", rows, times, faint))
    console.print(_verdict(rows, [ratio.fits for ratio in ratios]), highlight=False)
    content = common_content(options.split, data, dataset) | {
        "allowed": f"{config.detector.backbone}, one crop of {options.allowed_px} px",
        "processor": processor_name(),
    }
    more: list[dict[str, object]] = [
        {"time": asdict(ratio), "fits": ratio.fits} for ratio in ratios
    ]
    write_comparison(options.output / "crops.json", content, rows, more, console)


def _verdict(rows: Sequence[ComparisonRow], fits: Sequence[bool]) -> str:
    best = best_row(rows, fits)
    if best is None:
        return "no way to crop is fast enough: name fewer or smaller crops"
    if best is rows[0]:
        return f"of those within the time, none ranks better than {best.name}, the configured one"
    return f"of those within the time, {best.name} ranks best, {certainty(best)}"


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


@dataclass(frozen=True)
class Load:
    """A graph that takes ``image_NHWC`` uint8 [crops, crop_px, crop_px, 3]."""

    path: Path
    crop_px: int
    crops: int = 1


def in_turns(loads: Mapping[str, Load], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Milliseconds [rounds] of each load, by name; the i-th of all are of one turn."""
    random = np.random.default_rng(0)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = {
        path: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for path in {load.path for load in loads.values()}
    }
    images = {
        name: random.integers(0, 256, (one.crops, one.crop_px, one.crop_px, 3), dtype=np.uint8)
        for name, one in loads.items()
    }
    took_ms: dict[str, list[float]] = {name: [] for name in loads}
    for turn in range(_WARM_UP_ROUNDS + rounds):
        for name, load in loads.items():
            started_s = time.perf_counter()
            sessions[load.path].run(["logit_N"], {"image_NHWC": images[name]})
            if turn >= _WARM_UP_ROUNDS:
                took_ms[name].append((time.perf_counter() - started_s) * 1000)
    return {name: np.array(values) for name, values in took_ms.items()}
