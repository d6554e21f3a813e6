"""``average``: the mean of several runs' weights, as a run's folder that can be exported.

Networks that set out from the same pretrained weights often lie in one basin, and their mean ranks
new pictures better than they do (Wortsman et al., *Model soups*, ICML 2022; Ramé et al., *Diverse
weight averaging for out-of-distribution generalization*, NeurIPS 2022). The validation split says
whether these runs do: a mean of runs from different basins is useless.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from trainer.cli import Environment, add_common, configured
from trainer.config import Config
from trainer.data.dataset import Dataset, scan
from trainer.detector import Detector, classifier
from trainer.evaluation.compare import Alternative, ComparisonData, compare
from trainer.evaluation.metrics import Bootstrap
from trainer.teachers.opening import open_teacher
from trainer.training import checkpoint
from trainer.training.checkpoint import (
    AVERAGED,
    STARTED_FROM,
    TRAINED_ON,
    Best,
    CheckpointError,
    FinishedRun,
    SeenGenerators,
    Statistics,
    commit,
    load_run,
    read_run,
    refuse_trained_on,
    seen_generators,
    trained_files,
    warn_if_unlearnt,
    write_json,
)
from trainer.training.loop import Validation, Verdict, validation_of
from trainer.training.targets import TargetStore

_OF_TRAINING_ALONE = {"weights", "gate_drop_p", "dropout_p"}  # of [detector]
_NO_OPTION_OF_TRAINING = ("export.", "evaluation.", "data.splits.")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_common(parser)
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folders of finished runs; the first was trained by --config",
    )


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Judge each run and their mean by the validation split, write the mean's ``best.pt``."""
    config = configured(options, environment)
    output: Path = options.output
    if any((output / name).exists() for name in (checkpoint.BEST, checkpoint.LAST)):
        raise CheckpointError(f"{output} holds a run already: name another --output")
    runs = averageable_runs(options.runs, config)
    dataset = scan(config.data)
    for finished in runs:
        refuse_trained_on(finished.folder, finished.lineage, dataset)
    validation = _validation(runs, dataset, config, options.cache, console)
    weights, statistics = mean_weights(runs), mean_statistics(runs)
    each = [validation.verdict(one.best.weights, config, one.best.statistics) for one in runs]
    mean = validation.verdict(weights, config, statistics)
    if not mean.report.mean_auc:
        raise CheckpointError(
            "the validation split lacks real or generated pictures, so that nothing can judge the mean: "
            "name folders of both in data.splits.validation, and train by that configuration"
        )
    step = max(finished.best.step for finished in runs)
    best = Best(weights, step, mean.auc, mean.explained_variance, statistics)
    output.mkdir(parents=True, exist_ok=True)
    lineage = mean_lineage(runs, commit())
    checkpoint.save_best(output, best, config, lineage)
    write_json(output / "average.json", _plain(runs, each, mean))
    console.print(_table(runs, each, mean))
    aucs = [verdict.auc for verdict in each]
    under = mean.auc < min(aucs) and _surely_under(runs, weights, validation, config)
    console.print(advice(aucs, mean.auc, surely_under=under), highlight=False)
    warn_if_unlearnt(config, load_run(output, config), console)


def averageable_runs(folders: Sequence[Path], config: Config) -> list[FinishedRun]:
    """Read the runs; the first was trained by this configuration, the others may differ from it.

    Raises:
        CheckpointError: fewer than two, one that is named twice, or weights that do not fit
            together.
    """
    if len(folders) < 2:  # noqa: PLR2004  a mean of one run is that run
        raise CheckpointError("a mean needs at least two runs: name two folders or more")
    runs = [load_run(folders[0], config), *map(read_run, folders[1:])]
    count = Counter(finished.sha256 for finished in runs)
    twice = [str(finished.folder) for finished in runs if count[finished.sha256] > 1]
    if twice:
        raise CheckpointError(f"{', '.join(twice)} hold the same weights: name each run once")
    for finished in runs[1:]:
        _refuse_other_network(finished, runs[0])
    return runs


def _refuse_other_network(finished: FinishedRun, first: FinishedRun) -> None:
    # Equal shapes are not enough: backbones may share them, and crops be normalised in two ways.
    networks = [
        (
            {name: value.shape for name, value in run.best.weights.items()},
            run.config.detector.model_dump(exclude=_OF_TRAINING_ALONE),
        )
        for run in (finished, first)
    ]
    if networks[0] != networks[1]:
        raise CheckpointError(
            f"{finished.folder} holds another network than {first.folder}: runs that are averaged "
            "need the same [detector]"
        )
    ours, theirs = (one.lineage["teacher_id"] for one in (first, finished))
    if ours != theirs:
        raise CheckpointError(
            f"{finished.folder} learnt from another teacher ({theirs}) than {first.folder} ({ours}): "
            "their noise heads have no mean"
        )


def mean_weights(runs: Sequence[FinishedRun]) -> dict[str, Tensor]:
    """Of every weight and running statistic, in fp64; counters are the first run's."""
    mean = {}
    for name, value in runs[0].best.weights.items():
        if not value.is_floating_point():
            mean[name] = value.clone()
            continue
        stacked = torch.stack([finished.best.weights[name].double() for finished in runs])
        mean[name] = stacked.mean(dim=0).to(value.dtype)
    return mean


def mean_statistics(runs: Sequence[FinishedRun]) -> Statistics | None:
    """Of the targets, which scale the mean's noise head; None where no run had a teacher."""
    each = [run.best.statistics for run in runs if run.best.statistics is not None]
    if not each:
        return None
    mean_C, std_C = (
        tuple(fmean(values) for values in zip(*rows, strict=True))
        for rows in ([one.mean_C for one in each], [one.std_C for one in each])
    )
    return Statistics(mean_C, std_C)


def mean_lineage(runs: Sequence[FinishedRun], code_commit: str) -> dict[str, str]:
    """The mean has seen everything that a run of it has seen; each run is listed."""
    seen = SeenGenerators(frozenset(), frozenset())
    for finished in runs:
        seen = seen.and_before(seen_generators(finished.lineage))
    digests = [finished.lineage["data_digest"] for finished in runs]
    files = frozenset().union(*(trained_files(finished.lineage) for finished in runs))
    lineage = {
        # The runs' own digest where they agree, else a digest of them all.
        "data_digest": digests[0]
        if len(set(digests)) == 1
        else hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "teacher_id": runs[0].lineage["teacher_id"],
        "code_commit": code_commit,
        TRAINED_ON: "\n".join(sorted(files)),
        AVERAGED: json.dumps([_origin(finished, runs[0]) for finished in runs]),
        **seen.as_lineage(),
    }
    starts = {finished.lineage.get(STARTED_FROM) for finished in runs}
    start = starts.pop()
    return lineage if starts or start is None else lineage | {STARTED_FROM: start}


def _origin(finished: FinishedRun, first: FinishedRun) -> dict[str, object]:
    """One run of the mean, for its lineage."""
    ours, theirs = (checkpoint.flat_config(run.config) for run in (first, finished))
    return {
        "best": f"sha256:{finished.sha256}",
        "step": finished.best.step,
        "code_commit": finished.lineage["code_commit"],
        "data_digest": finished.lineage["data_digest"],
        STARTED_FROM: finished.lineage.get(STARTED_FROM),
        "seed": finished.config.seed,
        "other_options": {
            key: theirs.get(key)
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
            and key != "seed"
            and not key.startswith(_NO_OPTION_OF_TRAINING)
        },
    }


def advice(each: Sequence[float], mean: float, *, surely_under: bool) -> str:
    """What the validation split says of a mean beside its runs, and what to do.

    Args:
        each: mean AUC of the runs.
        mean: that of the mean of their weights.
        surely_under: whether every run ranks better than the mean by an interval without zero.
    """
    text = f"the mean of the weights ranks the validation split at {mean:.4f}"
    if mean >= max(each):
        return f"{text}, the best run alone at {max(each):.4f}"
    if mean >= min(each):
        return (
            f"{text}, under the best run alone ({max(each):.4f}): take that run, or leave out the "
            "weakest"
        )
    if not surely_under:
        return (
            f"{text}, under every one of its runs ({min(each):.4f} and more), by no more than other "
            "pictures might make: python -m trainer compare judges them by other splits too"
        )
    return (
        f"{text}, under every one of its runs: these weights do not belong together, so do not use it "
        "(runs that are averaged need the same first weights, and a learning rate that ends low)"
    )


def _validation(
    runs: Sequence[FinishedRun], dataset: Dataset, config: Config, cache: Path, console: Console
) -> Validation:
    notify = partial(console.print, markup=False, highlight=False)
    targets = None
    if any(finished.best.statistics is not None for finished in runs):
        targets = TargetStore(open_teacher(config.teacher), config.teacher, cache / "targets")
    return validation_of(dataset, targets, config, notify)


def _surely_under(
    runs: Sequence[FinishedRun],
    mean: Mapping[str, Tensor],
    validation: Validation,
    config: Config,
) -> bool:
    """Whether each run ranks something better than the mean, by an interval without zero."""
    each = {"mean": mean} | {str(run.folder): run.best.weights for run in runs}
    alternatives = [
        Alternative(
            name,
            classifier(Detector.restored(config.detector, dict(weights))),
            config.export.preprocess,
        )
        for name, weights in each.items()
    ]
    bootstrap = Bootstrap(config.evaluation.resamples, config.seed)
    data = ComparisonData(validation.pictures, validation.pairs)
    _, *others = compare(alternatives, data, bootstrap)
    return all(any(row.less_first[name].low > 0 for name in row.auc) for row in others)


def _table(runs: Sequence[FinishedRun], each: Sequence[Verdict], mean: Verdict) -> Table:
    table = Table(title="AUC on the validation split", title_justify="left", box=None)
    table.add_column("run", overflow="fold")
    for name in (*mean.report.mean_auc, "mean", "noise explained"):
        table.add_column(name, justify="right")
    names = [*(finished.folder.name for finished in runs), "mean of the weights"]
    for name, verdict in zip(names, [*each, mean], strict=True):
        figures = [f"{value:.4f}" for value in (*verdict.report.mean_auc.values(), verdict.auc)]
        learnt = verdict.explained_variance
        table.add_row(name, *figures, "" if learnt is None else f"{learnt:.3f}")
    return table


def _plain(
    runs: Sequence[FinishedRun], each: Sequence[Verdict], mean: Verdict
) -> dict[str, object]:
    rows: list[dict[str, object]] = [
        {"auc": verdict.auc, **asdict(verdict)} for verdict in (*each, mean)
    ]
    origins = [{"folder": run.folder.name, "best": f"sha256:{run.sha256}"} for run in runs]
    return {
        "runs": [origin | row for origin, row in zip(origins, rows[:-1], strict=True)],
        "mean": rows[-1],
        "code_commit": commit(),
    }
