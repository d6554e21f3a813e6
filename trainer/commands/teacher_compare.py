"""``teacher-compare``: how well each of some teachers finds noise that was added to photographs."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from engines.terminal import positive
from trainer.commands import Environment, Parsers, configured
from trainer.config import Config
from trainer.config.data import SPLITS
from trainer.data.dataset import Dataset, Picture, scan
from trainer.evaluation.metrics import Estimate, estimate, resampled_counts
from trainer.files import write_json
from trainer.progress import ProgressBar
from trainer.teachers.comparing import Found, compare
from trainer.teachers.crops import large_enough, several
from trainer.teachers.errors import TeacherError
from trainer.training.setup import commit, pictures_of

_RESAMPLES = 2000
_SEED = 0  # of places and resamples: two runs of the command show the same


@dataclass(frozen=True)
class _Row:
    """A teacher at a step; ``less_first`` is the paired difference to the first teacher."""

    source: str
    teacher_id: str
    index: int
    photographs: int
    error: Estimate
    less_first: Estimate


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = parsers.add_parser(
        "teacher-compare", parents=[common], help="how well teachers find noise in photographs"
    )
    parser.add_argument("--teacher", nargs="+", required=True, help="diffusers folders or hub ids")
    parser.add_argument(
        "--split", choices=SPLITS, default="validation", help="whose photographs (validation)"
    )
    parser.add_argument("--index", type=_index, nargs="+", default=[0, 1, 10, 50], help="steps t")
    parser.add_argument("--crops", type=positive, default=4, help="of each photograph (4)")
    parser.add_argument("--side-px", type=positive, default=64, help="of a crop (64)")
    parser.add_argument(
        "--tile-px", type=positive, help="what a network sees at once (its own size)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Measure, print the table, write ``teacher-compare.json``."""
    config = configured(options, environment)
    dataset = scan(config.data, classes=("real",))
    photographs = _photographs(options, config, dataset, console)
    x_NKCHW = several(photographs, options.crops, options.side_px, _SEED)
    found: list[Found] = []
    with ProgressBar(console, "teachers") as bar:
        total = len(options.teacher) * len(options.index)
        for one in compare(options.teacher, options.index, x_NKCHW, options.tile_px):
            found.append(one)
            bar.show(len(found), total, f"{one.source}, t = {one.index}")
    rows = _rows(found)
    console.print(_table(rows))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "teacher-compare.json"
    write_json(
        path,
        {
            "split": options.split,
            "crops": options.crops,
            "side_px": options.side_px,
            "data_digest": dataset.digest,
            "code_commit": commit(),
            "rows": [asdict(one) for one in rows],
        },
    )
    console.print(f"{path} has the figures", highlight=False)


def _photographs(
    options: argparse.Namespace, config: Config, dataset: Dataset, console: Console
) -> list[Picture]:
    sources = [one for one in dataset.splits[options.split] if one.label == 0]
    pictures = pictures_of(
        sources, config.data, lambda text: console.print(text, markup=False, highlight=False), None
    )
    if not pictures:
        raise TeacherError(
            f"the {options.split} split holds no real image: name some, or another --split"
        )
    found = large_enough(pictures, options.side_px, options.split)
    console.print(
        f"{len(found)} photographs of the {options.split} split, {options.crops} crops of "
        f"{options.side_px} px each; {len(pictures) - len(found)} are smaller"
    )
    return found


def _rows(found: Sequence[Found]) -> list[_Row]:
    first = {one.index: one.error_N for one in reversed(found) if one.source == found[0].source}
    photographs = len(found[0].error_N)
    count_RN = resampled_counts(photographs, _RESAMPLES, np.random.default_rng(_SEED))

    def mean(value_N: NDArray[np.float64]) -> Estimate:
        return estimate(float(value_N.mean()), count_RN @ value_N / photographs)

    return [
        _Row(
            source=one.source,
            teacher_id=one.teacher_id,
            index=one.index,
            photographs=photographs,
            error=mean(one.error_N),
            less_first=mean(one.error_N - first[one.index]),
        )
        for one in found
    ]


def _table(rows: Sequence[_Row]) -> Table:
    table = Table(title="mean squared error of the noise found; to find none gives 1")
    for name in ("teacher", "t", "error", "less the first teacher's"):
        table.add_column(name, overflow="fold")
    for row in rows:
        less = "" if row.source == rows[0].source else row.less_first.shown("+.3f")
        table.add_row(row.source, str(row.index), row.error.shown(), less)
    return table


def _index(text: str) -> int:
    """A step, from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)
