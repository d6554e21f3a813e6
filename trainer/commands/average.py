"""``average``: the mean of several runs' weights, as a run's folder that calibrates, evaluates and exports."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import Tensor

from trainer.commands import Environment, Parsers, configured
from trainer.commands.chosen import tell_if_unlearnt
from trainer.config import Config
from trainer.data.dataset import Dataset, scan
from trainer.detector import Detector, classifier
from trainer.evaluation.metrics import Bootstrap
from trainer.evaluation.ranking import Candidate, Material, ranked
from trainer.files import write_json
from trainer.teachers.opening import open_teacher
from trainer.training import checkpoint
from trainer.training.checkpoint import Best, CheckpointError
from trainer.training.initial_weights import refuse_trained_on
from trainer.training.mean_of_runs import (
    Finished,
    finished_runs,
    mean_lineage,
    mean_statistics,
    mean_weights,
    worth_of_mean,
)
from trainer.training.setup import commit, validation_of
from trainer.training.targets import TargetStore
from trainer.training.validation import Validation, Verdict

FOUND = "average.json"


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = parsers.add_parser(
        "average", parents=[common], help="the mean of several runs' weights, as a run"
    )
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folders of finished runs; the first was trained by --config",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Judge each run and their mean by the validation split, write the mean's ``best.pt``."""
    config = configured(options, environment)
    output: Path = options.output
    if any((output / name).exists() for name in (checkpoint.BEST, checkpoint.LAST)):
        raise CheckpointError(f"{output} holds a run already: name another --output")
    runs = finished_runs(options.runs, config)
    dataset = scan(config.data)
    for one in runs:
        refuse_trained_on(one.folder, one.lineage, dataset)
    validation = _validation(runs, dataset, config, options.cache, console)
    weights, statistics = mean_weights(runs), mean_statistics(runs)
    each = [validation.verdict(one.best.weights, config, one.best.statistics) for one in runs]
    mean = validation.verdict(weights, config, statistics)
    if not mean.report.mean_auc:
        raise CheckpointError(
            "the validation split lacks real or generated pictures, so nothing tells whether these runs have "
            "a mean: name folders of both in data.splits.validation, and train by that configuration"
        )
    best = Best(
        weights,
        max(one.best.step for one in runs),
        mean.auc,
        mean.explained_variance,
        statistics,
    )
    output.mkdir(parents=True, exist_ok=True)
    checkpoint.save_best(output, best, config, mean_lineage(runs, commit()))
    write_json(output / FOUND, _plain(runs, each, mean))
    console.print(_table(runs, each, mean))
    of_each = [one.auc for one in each]
    under = mean.auc < min(of_each) and _surely_under(runs, weights, validation, config)
    console.print(worth_of_mean(of_each, mean.auc, surely_under=under), highlight=False)
    tell_if_unlearnt(config, output, console)


def _validation(
    runs: Sequence[Finished], dataset: Dataset, config: Config, cache: Path, console: Console
) -> Validation:
    def notify(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    targets = None
    if any(one.best.statistics is not None for one in runs):
        targets = TargetStore(open_teacher(config.teacher), config.teacher, cache / "targets")
    return validation_of(dataset, targets, config, notify)


def _surely_under(
    runs: Sequence[Finished],
    mean: Mapping[str, Tensor],
    validation: Validation,
    config: Config,
) -> bool:
    """Whether each run ranks something better than the mean, by an interval that leaves out zero."""
    each = {"mean": mean} | {str(one.folder): one.best.weights for one in runs}
    candidates = [
        Candidate(
            name,
            classifier(Detector.restored(config.detector, dict(weights))),
            config.export.preprocess,
        )
        for name, weights in each.items()
    ]
    bootstrap = Bootstrap(config.evaluation.resamples, config.seed)
    material = Material(validation.pictures, validation.pairs)
    _, *others = ranked(candidates, material, bootstrap)
    return all(any(less.low > 0 for less in one.less_first.values()) for one in others)


def _table(runs: Sequence[Finished], each: Sequence[Verdict], mean: Verdict) -> Table:
    table = Table(title="AUC on the validation split", title_justify="left", box=None)
    table.add_column("run", overflow="fold")
    for name in mean.report.mean_auc:
        table.add_column(name, justify="right")
    table.add_column("mean", justify="right")
    table.add_column("noise explained", justify="right")
    names = [*(one.folder.name for one in runs), "mean of the weights"]
    for name, verdict in zip(names, [*each, mean], strict=True):
        figures = [f"{value:.4f}" for value in (*verdict.report.mean_auc.values(), verdict.auc)]
        learnt = verdict.explained_variance
        table.add_row(name, *figures, "" if learnt is None else f"{learnt:.3f}")
    return table


def _plain(runs: Sequence[Finished], each: Sequence[Verdict], mean: Verdict) -> dict[str, object]:
    return {
        "runs": [
            {"folder": one.folder.name, "best": f"sha256:{one.sha256}", **_figures(verdict)}
            for one, verdict in zip(runs, each, strict=True)
        ],
        "mean": _figures(mean),
        "code_commit": commit(),
    }


def _figures(verdict: Verdict) -> dict[str, object]:
    return {"auc": verdict.auc, **asdict(verdict)}
