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

from engines.arguments import positive
from engines.manifest import PreprocessSpec
from engines.runtime.machine import processor_name
from trainer.bundle.export import write_onnx
from trainer.bundle.timing import Load, in_turns
from trainer.commands.chosen import chosen_detector, judging_data
from trainer.commands.options import Environment, Parsers, configured
from trainer.config import Config
from trainer.data.pairs import Pair
from trainer.data.sources import Dataset, Picture
from trainer.detector import Detector
from trainer.evaluation.apart import set_apart
from trainer.evaluation.crop_policies import Ranked, best, named, policy_of, ranked
from trainer.evaluation.errors import EvaluationError
from trainer.evaluation.metrics import Bootstrap
from trainer.training.loop import export_spec
from trainer.training.results import write_json
from trainer.training.setup import commit, pictures_of, stored_pairs

# Those that may choose: training has seen its own pictures, and the test split decides nothing.
_SPLITS = ("validation", "calibration", "threshold")
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
    parser.add_argument(
        "--split", choices=_SPLITS, nargs="+", default=["validation"], help="(validation)"
    )
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
    own = export_spec(config)
    asked = [policy_of(one) for one in options.policies]
    specs = [own, *(one for one in dict.fromkeys(asked) if one != own)]
    infer, _ = chosen_detector(config, options.output)
    dataset = judging_data(config, options.output)
    pictures, pairs = _material(options.split, config, dataset, console)
    console.print(
        f"{len(pictures)} pictures and {len(pairs)} pairs of the {' and '.join(options.split)} split",
        highlight=False,
    )
    ratios = _ratios(config, specs, options.allowed_px, options.rounds)
    bootstrap = Bootstrap(config.evaluation.resamples, config.seed)
    found = ranked(infer, pictures, pairs, specs, bootstrap)
    rows = [_Row(one, ratio) for one, ratio in zip(found, ratios, strict=True)]
    console.print(_table(rows, options.allowed_px))
    console.print(_said(rows), highlight=False)
    path: Path = options.output / "crops.json"
    write_json(
        path,
        {
            "splits": options.split,
            "pictures": len(pictures),
            "pairs": len(pairs),
            "allowed": f"{config.detector.backbone}, one crop of {options.allowed_px} px",
            "processor": processor_name(),
            "data_digest": dataset.digest,
            "code_commit": commit(),
            "rows": [_plain(one) for one in rows],
        },
    )
    console.print(f"{path} has the figures", highlight=False)


def _material(
    splits: Sequence[str], config: Config, dataset: Dataset, console: Console
) -> tuple[list[Picture], list[Pair]]:
    """The pictures that may choose, and the pairs of such photographs."""

    def notify(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    pictures: list[Picture] = []
    pairs: list[Pair] = []
    for name in dict.fromkeys(splits):
        pictures += pictures_of(dataset.splits[name], config.data, notify, None)
        if dataset.pairs.get(name):
            pairs += stored_pairs(dataset, config, name, notify)
    kept, _ = set_apart(pictures, config.evaluation.apart)
    if {one.source.label for one in kept} != {0, 1}:
        raise EvaluationError(
            f"the {' and '.join(splits)} split lacks real or generated pictures: name another "
            "--split, or several"
        )
    return kept, pairs


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
    table = Table(
        title="mean AUC over families, and the time of a picture to that of one crop of "
        f"{allowed_px} px; the first way is the configured one",
        box=None,
        padding=(0, 2, 0, 0),
        title_justify="left",
    )
    for name in ("crops", "what", "[95 %]", "less the first's [95 %]"):
        table.add_column(name)
    for index, row in enumerate(rows):
        for line in _lines(row, first=index == 0):
            table.add_row(*line, style=None if row.fits else "dim")
        table.add_row()
    return table


def _lines(row: _Row, *, first: bool) -> list[tuple[str, str, str, str]]:
    one, ratio = row.ranked, row.ratio
    less = {
        condition: "" if first else value.shown("+.3f")
        for condition, value in one.less_first.items()
    }
    found = [
        (one.name, "native", one.auc["native"].shown(), less["native"]),
        ("", f"aligned {one.aligned_px} px", one.auc["aligned"].shown(), less["aligned"]),
    ]
    if one.pairs is not None:
        found.append(("", "pairs", f"{one.pairs:.3f}", ""))
    time = f"{ratio.median:.2f} [{ratio.p10:.2f}, {ratio.p90:.2f}]"
    return [*found, ("", "time (80 %)", time, "" if row.fits else "longer than allowed")]


def _said(rows: Sequence[_Row]) -> str:
    first = rows[0].ranked
    chosen = best([one.ranked for one in rows], [one.fits for one in rows])
    if chosen is None:
        return "none takes as little as is allowed: ask for fewer or smaller crops"
    if chosen is first:
        return f"of those within the time, none ranks better than {first.name}, the configured one"
    sure = [condition for condition, less in chosen.less_first.items() if less.low > 0]
    surely = (
        f"{' and '.join(sure)} by an interval that leaves out zero"
        if sure
        else "though these pictures cannot tell it from the configured one"
    )
    return f"of those within the time, {chosen.name} ranks best, {surely}"


def _plain(row: _Row) -> dict[str, object]:
    found = asdict(row.ranked) | {"time": asdict(row.ratio), "fits": row.fits}
    found["figure"] = row.ranked.figure
    return {"policy": row.ranked.name, **found, "spec": row.ranked.spec.model_dump(mode="json")}
