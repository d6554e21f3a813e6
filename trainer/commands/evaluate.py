"""``evaluate``: writes evaluate-SPLIT.json and a report with plots, of a run or a bundle."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from engines.bundle.verify import load_bundle
from engines.runtime import Runtime
from trainer.cli import Environment, add_common, configured
from trainer.config import Config
from trainer.data.dataset import Dataset, Picture, pictures_of, scan
from trainer.data.pairs import Pair, load_pairs, read_pair_files
from trainer.evaluation.calibration import Deployment, bundle_stem, threshold_sets
from trainer.evaluation.metrics import SplitResult
from trainer.evaluation.report import findings, write_report
from trainer.evaluation.run import (
    DetectorInfo,
    EvaluatedModel,
    EvaluatedSet,
    Evaluation,
    run_evaluation,
)
from trainer.evaluation.scoring import EvaluationError, Infer, split_out_of_domain
from trainer.training.checkpoint import (
    CALIBRATION,
    GENERATORS,
    FinishedRun,
    commit,
    exported_graph,
    flat_config,
    load_run,
    measured_with,
    seen_generators,
    warn_if_unlearnt,
    write_json,
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_common(parser)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--bundle", type=Path, help="evaluate an exported bundle, not the run")
    parser.add_argument(
        "--report", type=Path, help="the report's folder (OUTPUT/report-SPLIT, or -NAME-VERSION)"
    )


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Measure, write the files, and warn (or fail, by ``evaluation.strict``) where it is void."""
    config = configured(options, environment)
    finished = None if options.bundle else load_run(options.output, config)
    if finished is None:
        model, dataset = bundle_model(options.bundle, config.threads), scan(config.data)
    else:
        model, dataset = run_model(config, finished), finished.judging_data(config)
    name = "" if finished else f"-{model.info.name.replace(' ', '-')}"
    folder = options.report or options.output / f"report{name}-{options.split}"
    pictures = pictures_of(dataset.splits[options.split], config.data, console.print, None)
    evaluation = run_evaluation(
        model,
        pictures,
        _unseen_pairs(config, dataset, options.split, console),
        _evaluated_set(pictures, config, options.split),
        config.evaluation,
        console.print,
    )
    path = write_report(
        folder, evaluation, model, _settings(config), config.evaluation.attention_images
    )
    # What export reads: a bundle's results stay with its report, apart from those of the run.
    content = {**asdict(evaluation.summary), "findings": findings(evaluation)}
    if finished is not None:
        content |= measured_with(config, options.split)
    results = folder if finished is None else options.output
    write_json(results / f"evaluate-{options.split}.json", content)
    console.print(result_table(evaluation.summary, f"{options.split}, {model.info.name}"))
    console.print(f"report: {path}")
    if finished is not None:
        warn_if_unlearnt(config, finished, console)
    _warn_if_void(
        evaluation, path, console, strict=config.evaluation.strict or config.export.strict
    )


def run_model(config: Config, finished: FinishedRun) -> EvaluatedModel:
    """The chosen weights of a run; with its thresholds, if ``calibrate`` has set them."""
    seen, deployed = seen_generators(finished.lineage), None
    if (finished.folder / CALIBRATION).exists():
        calibration = finished.calibration(config)
        sets = threshold_sets(bundle_stem(config.export), calibration.sets)
        deployed = Deployment(calibration.fit.scale, calibration.fit.bias, sets)
    info = DetectorInfo(
        kind="run",
        name=finished.folder.name,
        sha256=finished.sha256,
        code_commit=finished.lineage["code_commit"],
        training_data_digest=finished.lineage["data_digest"],
        teacher_id=finished.lineage["teacher_id"],
        explained_variance=finished.best.explained_variance,
        seen_fake=tuple(sorted(seen.generators)),
        seen_regenerators=tuple(sorted(seen.regenerators)),
    )
    detector = finished.detector(config)
    infer = exported_graph(detector, config)
    return EvaluatedModel(info, infer, config.export.preprocess, deployed, detector, ())


def bundle_model(directory: Path, threads: int) -> EvaluatedModel:
    """An exported bundle, verified, with all of its threshold sets.

    It is loaded as a worker loads it, and scores pictures by the runtime that serves it.
    """
    bundle = load_bundle(directory, threads=threads)
    manifest = bundle.manifest
    if GENERATORS not in manifest.lineage.config:
        raise EvaluationError(
            f"{directory} does not say which generators its training has seen, so that none could be "
            "called unseen: evaluate a bundle that this version of the trainer exported"
        )
    seen = seen_generators(manifest.lineage.config)
    info = DetectorInfo(
        kind="bundle",
        name=f"{manifest.name} {manifest.version}",
        sha256=bundle.sha256,
        code_commit=manifest.lineage.code_commit,
        training_data_digest=manifest.lineage.data_digest,
        teacher_id=manifest.lineage.teacher_id,
        explained_variance=manifest.explained_variance,
        seen_fake=tuple(sorted(seen.generators)),
        seen_regenerators=tuple(sorted(seen.regenerators)),
    )
    default = manifest.threshold_set(None)
    others = tuple(one for one in manifest.threshold_sets if one is not default)
    calibration = manifest.calibration
    deployed = Deployment(calibration.scale, calibration.bias, (default, *others))
    infer = _in_batches(bundle.runtime)
    return EvaluatedModel(info, infer, manifest.preprocess, deployed, None, manifest.metrics)


def _in_batches(runtime: Runtime) -> Infer:
    """However many crops there are, the runtime gets no more at once than it takes."""

    def infer(image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        step = runtime.batch_max
        parts = [
            runtime.infer(np.ascontiguousarray(image_NHWC[start : start + step]))
            for start in range(0, len(image_NHWC), step)
        ]
        return np.concatenate(parts)

    return infer


def _unseen_pairs(config: Config, dataset: Dataset, split: str, console: Console) -> list[Pair]:
    """Pairs whose photograph is in the evaluated split, or in none: they moved no weight."""
    settings = config.evaluation.pairs
    owner = {source.sha256: name for name, sources in dataset.splits.items() for source in sources}
    files = read_pair_files(settings.roots or config.data.pairs, settings.families)
    kept = [one for one in files if owner.get(one.line.sha256, split) == split]
    if len(kept) < len(files):
        console.print(
            f"{len(files) - len(kept)} of {len(files)} paired photographs are in other splits: "
            "left out"
        )
    return load_pairs(
        kept,
        strict=config.data.strict,
        on_skip=lambda name, error: console.print(f"skipped {name}: {error}"),
    )


def _evaluated_set(pictures: Sequence[Picture], config: Config, split: str) -> EvaluatedSet:
    lines = sorted(f"{picture.source.key} {picture.source.sha256}" for picture in pictures)
    judged, other_kinds = split_out_of_domain(pictures, config.evaluation.out_of_domain)
    n_fake = sum(picture.source.label for picture in judged)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return EvaluatedSet(split, len(judged) - n_fake, n_fake, digest, len(other_kinds))


def _settings(config: Config) -> dict[str, object]:
    """What report.json says of how it came about."""
    flat = flat_config(config)
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_commit": commit(),
        "config_sha256": hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest(),
        "config": flat,
    }


def result_table(result: SplitResult, title: str) -> Table:
    """A row for each generator and condition, then the mean and the worst."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("generator", overflow="fold")
    table.add_column("condition")
    for name in ("fake", "real", "AUC", "AP", "acc", "acc real", "acc fake"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.families:
        figures = (row.auc, row.ap, row.accuracy_at_half, row.real_accuracy, row.fake_accuracy)
        counts = (str(row.n_fake), str(row.n_real))
        cells = (f"{figure:.3f}" for figure in figures)
        table.add_row(row.generator, row.condition, *counts, *cells)
    for condition, mean in result.mean_auc.items():
        table.add_row("mean", condition, "", "", f"{mean:.3f}")
        worst = result.worst_generator[condition]
        table.add_row(f"worst: {worst}", condition, "", "", f"{result.worst_auc[condition]:.3f}")
    return table


def _warn_if_void(evaluation: Evaluation, path: Path, console: Console, *, strict: bool) -> None:
    if not evaluation.void:
        return
    named = ", ".join(
        f"{probe.shortcut} {probe.balanced_accuracy:.3f} [{probe.low:.3f}, {probe.high:.3f}]"
        for probe in evaluation.void
    )
    text = (
        f"shortcuts alone tell the aligned classes of this split apart ({named}, over "
        f"{evaluation.probe_limit:g}): its figures show more than forgery. Evaluate on "
        f"content-matched pairs or on classes of one kind of source; {path} has the figures all "
        "the same"
    )
    if strict:
        raise EvaluationError(f"VOID: {text}")
    console.print(f"[bold red]VOID:[/] {text}", highlight=False)
