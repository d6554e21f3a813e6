"""``compare``: which of several finished runs ranks pictures best that shaped none of them.

``crops`` chooses by the same pictures and shows the same table.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from trainer.cli import Environment, add_common, configured
from trainer.config import Config
from trainer.data.dataset import Dataset, Picture, pictures_of, scan, stored_pairs
from trainer.data.pairs import Pair
from trainer.evaluation.compare import (
    Alternative,
    ComparisonData,
    ComparisonRow,
    best_row,
    certainty,
    compare,
)
from trainer.evaluation.metrics import Bootstrap
from trainer.evaluation.scoring import EvaluationError, split_out_of_domain
from trainer.progress import ProgressBar
from trainer.training.checkpoint import (
    CheckpointError,
    FinishedRun,
    commit,
    exported_graph,
    read_run,
    refuse_trained_on,
    write_json,
)

# Training has seen its own pictures, and the test split decides nothing.
_SPLITS = ("validation", "calibration", "threshold")
_TOGETHER = "all together"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_common(parser)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs"
    )
    add_splits(parser)
    parser.add_argument(
        "--together",
        action="store_true",
        help="also rank by the mean of their logits (an ensemble)",
    )


def add_splits(parser: argparse.ArgumentParser) -> None:
    """The option that names the splits."""
    parser.add_argument(
        "--split",
        choices=_SPLITS,
        metavar="SPLIT",
        nargs="+",
        default=["validation"],
        help="the splits whose pictures are ranked: "
        + ", ".join(_SPLITS)
        + " (default: validation)",
    )


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Rank by each run, print the table, write ``compare.json``."""
    config = configured(options, environment)
    folders: list[Path] = options.runs
    if len(set(folders)) < len(folders):
        raise CheckpointError("a run is named twice: name each run once")
    dataset = scan(config.data)
    runs = [read_run(folder) for folder in folders]
    for finished in runs:
        refuse_trained_on(finished.folder, finished.lineage, dataset)
    data = comparison_data(options.split, config, dataset, console)
    rows = comparison_rows(
        _alternatives(runs, config, together=options.together), data, config, console
    )
    learnt = [finished.best.explained_variance for finished in runs]
    noise = [
        [] if share is None else [("noise explained", f"{share:.1%}", "")]
        for share in (*learnt, None)
    ]
    title = "mean AUC; the first run is what the others are compared with"
    console.print(comparison_table(title, "run", rows, noise))
    best = best_row(rows[: len(runs)], [True] * len(runs))
    verdict = (
        f"none ranks better than {rows[0].name}, the first"
        if best is None or best is rows[0]
        else f"{best.name} ranks best, {certainty(best)}"
    )
    console.print(verdict, highlight=False)
    origins: list[dict[str, object]] = [
        {"best": f"sha256:{finished.sha256}", "explained_variance": share}
        for finished, share in zip(runs, learnt, strict=True)
    ]
    path = options.output / "compare.json"
    content = common_content(options.split, data, dataset)
    write_comparison(path, content, rows, [*origins, {}], console)


def _alternatives(
    runs: Sequence[FinishedRun], config: Config, *, together: bool
) -> list[Alternative]:
    spec = config.export.preprocess
    # Each by its own [detector]: runs of two recipes may be compared.
    graphs = [exported_graph(finished.detector(finished.config), config) for finished in runs]
    alternatives = [
        Alternative(str(finished.folder), infer, spec)
        for finished, infer in zip(runs, graphs, strict=True)
    ]
    if together:
        alternatives.append(
            Alternative(
                _TOGETHER, lambda crops: np.mean([each(crops) for each in graphs], axis=0), spec
            )
        )
    return alternatives


def comparison_data(
    splits: Sequence[str], config: Config, dataset: Dataset, console: Console
) -> ComparisonData:
    """The pictures of these splits, the pairs of such photographs, and other kinds of pictures."""
    notify = partial(console.print, markup=False, highlight=False)
    pictures: list[Picture] = []
    pairs: list[Pair] = []
    for name in dict.fromkeys(splits):
        pictures += pictures_of(dataset.splits[name], config.data, notify, None)
        if dataset.pairs.get(name):
            pairs += stored_pairs(dataset, config, name, notify)
    judging, other_kinds = split_out_of_domain(pictures, config.evaluation.out_of_domain)
    named = " and ".join(splits)
    if {picture.source.label for picture in judging} != {0, 1}:
        raise EvaluationError(
            f"the {named} split lacks real or generated pictures: name another --split, or several"
        )
    kinds = f", and {len(other_kinds)} real ones of other kinds" if other_kinds else ""
    notify(f"{len(judging)} pictures and {len(pairs)} pairs of the {named} split{kinds}")
    return ComparisonData(judging, pairs, other_kinds)


def comparison_rows(
    alternatives: Sequence[Alternative], data: ComparisonData, config: Config, console: Console
) -> list[ComparisonRow]:
    """Each takes a while, so that a bar shows them."""
    bootstrap = Bootstrap(config.evaluation.resamples, config.seed)
    rows: list[ComparisonRow] = []
    with ProgressBar(console, "alternatives") as bar:
        for row in compare(alternatives, data, bootstrap):
            rows.append(row)
            bar.show(len(rows), len(alternatives), row.name)
    return rows


def comparison_table(
    title: str,
    first_column: str,
    rows: Sequence[ComparisonRow],
    more: Sequence[Sequence[tuple[str, str, str]]],
    faint: Sequence[bool] = (),
) -> Table:
    """A block of lines for each row; ``more`` holds what else each block shows."""
    table = Table(title=title, box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column(first_column, overflow="fold")
    for name in ("what", "[95 %]", "less the first's [95 %]"):
        table.add_column(name, no_wrap=True)  # an interval over two lines is hard to read
    for index, row in enumerate(rows):
        style = "dim" if faint and faint[index] else None
        lines = [*_lines(row, first=index == 0), *more[index]]
        for at, line in enumerate(lines):
            table.add_row("" if at else row.name, *line, style=style)
        table.add_row()
    return table


def _lines(row: ComparisonRow, *, first: bool) -> list[tuple[str, str, str]]:
    names = {"aligned": f"aligned {row.aligned_px} px"}
    figures = (row.auc | row.more).items()
    less = {name: "" if first else row.less_first[name].shown("+.3f") for name, _ in figures}
    return [(names.get(name, name), figure.shown(), less[name]) for name, figure in figures]


def common_content(
    splits: Sequence[str], data: ComparisonData, dataset: Dataset
) -> dict[str, object]:
    """What either file says beside its rows."""
    return {
        "splits": splits,
        "pictures": len(data.pictures),
        "pairs": len(data.pairs),
        "out_of_domain": len(data.out_of_domain),
        "data_digest": dataset.digest,
        "code_commit": commit(),
    }


def write_comparison(
    path: Path,
    content: dict[str, object],
    rows: Sequence[ComparisonRow],
    more: Sequence[dict[str, object]],
    console: Console,
) -> None:
    """Write the rows, each with what else is known of it."""
    plain = [
        {**asdict(row), "figure": row.figure, "spec": row.spec.model_dump(mode="json"), **extra}
        for row, extra in zip(rows, more, strict=False)  # an ensemble may come last, or not
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content | {"rows": plain})
    console.print(f"{path} has the figures", highlight=False)
