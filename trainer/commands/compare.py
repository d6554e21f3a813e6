"""``compare``: which of several finished runs ranks pictures best that shaped none of them."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

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
from trainer.config import Config
from trainer.data.dataset import scan
from trainer.detector import Detector, classifier, gated_classifier
from trainer.evaluation.families import Infer
from trainer.evaluation.ranking import Candidate, Ranked, best, how_sure
from trainer.files import write_json
from trainer.training.checkpoint import CheckpointError
from trainer.training.initial_weights import refuse_trained_on
from trainer.training.mean_of_runs import Finished, finished_run
from trainer.training.setup import commit

FOUND = "compare.json"
_TOGETHER = "all together"


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = parsers.add_parser(
        "compare", parents=[common], help="which of several runs ranks pictures best"
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs"
    )
    add_splits(parser)
    parser.add_argument(
        "--together",
        action="store_true",
        help="the mean of their logits too: what they know at the cost of all",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Rank by each, print the table, write ``compare.json``."""
    config = configured(options, environment)
    folders: list[Path] = options.runs
    if len(set(folders)) < len(folders):
        raise CheckpointError("a run is named twice: name each once")
    dataset = scan(config.data)
    runs = [finished_run(folder) for folder in folders]
    for one in runs:
        refuse_trained_on(one.folder, one.lineage, dataset)
    judged_by = material(options.split, config, dataset, console)
    candidates = _candidates(runs, config, together=options.together)
    found = in_turn(candidates, judged_by, config, console)
    console.print(_table(found, runs))
    console.print(_said(found[: len(runs)]), highlight=False)
    options.output.mkdir(parents=True, exist_ok=True)
    path: Path = options.output / FOUND
    write_json(
        path,
        {
            "splits": options.split,
            **sizes(judged_by),
            "data_digest": dataset.digest,
            "code_commit": commit(),
            "rows": [{**plain(one), **_origin(one.name, runs)} for one in found],
        },
    )
    console.print(f"{path} has the figures", highlight=False)


def _candidates(runs: Sequence[Finished], config: Config, *, together: bool) -> list[Candidate]:
    spec = config.export.preprocess
    graph = gated_classifier if config.export.gate == "on" else classifier
    # Each by its own [detector]: runs of two recipes are what there is to compare.
    each = [graph(Detector.restored(one.config.detector, one.best.weights)) for one in runs]
    found = [Candidate(str(one.folder), infer, spec) for one, infer in zip(runs, each, strict=True)]
    if together:
        found.append(Candidate(_TOGETHER, _mean_of(each), spec))
    return found


def _mean_of(each: Sequence[Infer]) -> Infer:
    def infer(image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        mean_N: NDArray[np.float32] = np.mean([one(image_NHWC) for one in each], axis=0)
        return mean_N

    return infer


def _table(found: Sequence[Ranked], runs: Sequence[Finished]) -> Table:
    table = table_of("mean AUC; the first run is what the others are compared with", "run")
    learnt = {str(one.folder): one.best.explained_variance for one in runs}
    for index, one in enumerate(found):
        for line in lines(one, first=index == 0):
            table.add_row(*line)
        explained = learnt.get(one.name)
        if explained is not None:
            table.add_row("", "noise explained", f"{explained:.1%}")
        table.add_row()
    return table


def _said(found: Sequence[Ranked]) -> str:
    chosen = best(found, [True] * len(found))
    if chosen is None or chosen is found[0]:
        return f"none ranks better than {found[0].name}, the first"
    return f"{chosen.name} ranks best, {how_sure(chosen)}"


def _origin(name: str, runs: Sequence[Finished]) -> Mapping[str, object]:
    """Whose weights they are; all together are no one's."""
    return next(
        (
            {"best": f"sha256:{one.sha256}", "explained_variance": one.best.explained_variance}
            for one in runs
            if str(one.folder) == name
        ),
        {},
    )
