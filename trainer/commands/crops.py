"""``crops``: how a detector that is trained looks at pictures best, in the time that it may take."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from engines.bundle.manifest import PreprocessSpec
from engines.runtime.machine import processor_name
from engines.terminal import positive
from trainer.bundle.export import write_onnx
from trainer.bundle.timing import Load, in_turns
from trainer.commands import Environment, Parsers, configured
from trainer.commands.choosing import (
    add_splits,
    in_turn,
    lines,
    material,
    plain,
    sizes,
    table_of,
)
from trainer.commands.chosen import chosen_detector, judging_data
from trainer.config import Config
from trainer.detector import Detector
from trainer.evaluation.crop_policies import named, policy_of
from trainer.evaluation.ranking import Candidate, Ranked, best, how_sure
from trainer.files import write_json
from trainer.training.setup import commit

_ALLOWED_PX = 224
_ALLOWED = "allowed"


@dataclass(frozen=True)
class _Ratio:
    """The time of a picture to that of one crop of the size that is allowed, in turns."""

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class _Row:
    ranked: Ranked
    ratio: _Ratio

    @property
    def fits(self) -> bool:
        return self.ratio.median <= 1


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
    asked = [policy_of(one) for one in options.policies]
    specs = [own, *(one for one in dict.fromkeys(asked) if one != own)]
    infer, _ = chosen_detector(config, options.output)
    dataset = judging_data(config, options.output)
    judged_by = material(options.split, config, dataset, console)
    ratios = _ratios(config, specs, options.allowed_px, options.rounds)
    candidates = [Candidate(named(one), infer, one) for one in specs]
    found = in_turn(candidates, judged_by, config, console)
    rows = [_Row(one, ratio) for one, ratio in zip(found, ratios, strict=True)]
    console.print(_table(rows, options.allowed_px))
    console.print(_said(rows), highlight=False)
    path: Path = options.output / "crops.json"
    write_json(
        path,
        {
            "splits": options.split,
            **sizes(judged_by),
            "allowed": f"{config.detector.backbone}, one crop of {options.allowed_px} px",
            "processor": processor_name(),
            "data_digest": dataset.digest,
            "code_commit": commit(),
            "rows": [_plain(one) for one in rows],
        },
    )
    console.print(f"{path} has the figures", highlight=False)


def _ratios(
    config: Config, specs: Sequence[PreprocessSpec], allowed_px: int, rounds: int
) -> list[_Ratio]:
    """Neither weights nor pictures change how long a graph takes: random ones do."""
    torch.manual_seed(0)
    bare = config.detector.model_copy(update={"weights": ""})
    gated = config.export.gate == "on"
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.onnx"
        write_onnx(Detector(bare.model_copy(update={"levels": 0})), whole, allowed_px, gated=False)
        paths = {px: Path(folder) / f"{px}.onnx" for px in {one.crop_px for one in specs}}
        for px, path in paths.items():
            write_onnx(Detector(bare), path, px, gated=gated)
        loads = {named(one): Load(paths[one.crop_px], one.crop_px, one.max_crops) for one in specs}
        took_ms = in_turns({_ALLOWED: Load(whole, allowed_px), **loads}, rounds)
    return [
        _Ratio(median, p10, p90)
        for one in specs
        for p10, median, p90 in [
            map(float, np.percentile(took_ms[named(one)] / took_ms[_ALLOWED], (10, 50, 90)))
        ]
    ]


def _table(rows: Sequence[_Row], allowed_px: int) -> Table:
    title = (
        "mean AUC, and the time of a picture to that of one crop of "
        f"{allowed_px} px; the first way is the configured one"
    )
    table = table_of(title, "crops")
    for index, row in enumerate(rows):
        for line in (*lines(row.ranked, first=index == 0), _time(row)):
            table.add_row(*line, style=None if row.fits else "dim")
        table.add_row()
    return table


def _time(row: _Row) -> tuple[str, str, str, str]:
    one = row.ratio
    shown = f"{one.median:.2f} [{one.p10:.2f}, {one.p90:.2f}]"
    return "", "time (80 %)", shown, "" if row.fits else "longer than allowed"


def _said(rows: Sequence[_Row]) -> str:
    first = rows[0].ranked
    chosen = best([one.ranked for one in rows], [one.fits for one in rows])
    if chosen is None:
        return "none takes as little as is allowed: ask for fewer or smaller crops"
    if chosen is first:
        return f"of those within the time, none ranks better than {first.name}, the configured one"
    return f"of those within the time, {chosen.name} ranks best, {how_sure(chosen)}"


def _plain(row: _Row) -> dict[str, object]:
    return {**plain(row.ranked), "time": asdict(row.ratio), "fits": row.fits}
