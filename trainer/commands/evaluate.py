"""``evaluate``: writes evaluate-SPLIT.json and a report with plots; exits 1 where it is void."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines.preprocess import ImageError
from trainer.commands import Environment, Parsers, configured
from trainer.commands.chosen import judging_data, tell_if_unlearnt
from trainer.commands.judged import judged_bundle, judged_run
from trainer.config import Config
from trainer.data.dataset import Dataset, Picture, scan
from trainer.data.pairs import Pair, load_pairs, read_pair_files
from trainer.evaluation.apart import set_apart
from trainer.evaluation.errors import EvaluationError
from trainer.evaluation.evidence import Evidence, Measured, gather
from trainer.evaluation.families import Report
from trainer.evaluation.findings import findings
from trainer.evaluation.judged import Judged
from trainer.evaluation.report import write_report
from trainer.files import write_json
from trainer.training.checkpoint import flat_config, measured_with
from trainer.training.setup import commit, pictures_of


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = parsers.add_parser("evaluate", parents=[common], help="measure on a split")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--bundle", type=Path, help="judge an exported bundle, not the run")
    parser.add_argument(
        "--report", type=Path, help="the report's folder (OUTPUT/report-SPLIT, or -NAME-VERSION)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Measure, write, and refuse to call a void evaluation a success."""
    config = configured(options, environment)
    bundle: Path | None = options.bundle
    judged = (
        judged_run(config, options.output)
        if bundle is None
        else judged_bundle(bundle, config.threads)
    )
    folder = options.report or _default_folder(options.output, options.split, judged)
    dataset = judging_data(config, options.output) if bundle is None else scan(config.data)
    pictures = pictures_of(dataset.splits[options.split], config.data, console.print, None)
    evidence = gather(
        judged,
        pictures,
        _unseen_pairs(config, dataset, options.split, console),
        _measured(pictures, config, options.split),
        config.evaluation,
        console.print,
    )
    settings = _settings(config)
    path = write_report(folder, evidence, judged, settings, config.evaluation.attention_images)
    # What export reads: a bundle's results stay with its report, apart from those of the run.
    results = options.output if bundle is None else folder
    content = {**evidence.summary.as_json(), "findings": findings(evidence)}
    if bundle is None:
        content |= measured_with(config, options.split)
    write_json(results / f"evaluate-{options.split}.json", content)
    console.print(report_table(evidence.summary, f"{options.split}, {judged.subject.name}"))
    console.print(f"report: {path}")
    if bundle is None:
        tell_if_unlearnt(config, options.output, console)
    _tell_void(evidence, path, config, console)


def _default_folder(output: Path, split: str, judged: Judged) -> Path:
    if judged.subject.kind == "run":
        return output / f"report-{split}"
    return output / f"report-{judged.subject.name.replace(' ', '-')}-{split}"


def _unseen_pairs(config: Config, dataset: Dataset, split: str, console: Console) -> list[Pair]:
    """Pairs whose photograph is in the evaluated split, or in none: they moved no weight."""
    settings = config.evaluation.pairs
    owner = {source.sha256: name for name, sources in dataset.splits.items() for source in sources}
    roots = settings.roots or config.data.pairs
    found = read_pair_files(roots, settings.families)
    kept = [one for one in found if owner.get(one.line.sha256, split) == split]
    if len(kept) < len(found):
        console.print(
            f"{len(found) - len(kept)} of {len(found)} paired photographs are in other splits: "
            "left out"
        )

    def on_skip(name: str, error: ImageError) -> None:
        console.print(f"skipped {name}: {error}")

    return load_pairs(kept, strict=config.data.strict, on_skip=on_skip)


def _measured(pictures: Sequence[Picture], config: Config, split: str) -> Measured:
    lines = sorted(f"{one.source.key} {one.source.sha256}" for one in pictures)
    others, apart = set_apart(pictures, config.evaluation.apart)
    n_fake = sum(one.source.label for one in others)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return Measured(split, len(others) - n_fake, n_fake, digest, len(apart))


def _settings(config: Config) -> dict[str, object]:
    """What report.json says of how it came about."""
    flat = flat_config(config)
    canonical = json.dumps(flat, sort_keys=True)
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_commit": commit(),
        "config_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "config": flat,
    }


def report_table(report: Report, title: str) -> Table:
    """A row for each generator and condition, then the mean and the worst."""
    table = Table(title=title)
    for name in ("generator", "condition", "fake", "real", "AUC", "AP", "acc@.5", "real", "fake"):
        table.add_column(name, justify="left" if name in {"generator", "condition"} else "right")
    for one in report.families:
        figures = (one.auc, one.ap, one.accuracy_at_half, one.real_accuracy, one.fake_accuracy)
        table.add_row(
            one.generator,
            one.condition,
            str(one.n_fake),
            str(one.n_real),
            *(f"{figure:.3f}" for figure in figures),
        )
    for condition, mean in report.mean_auc.items():
        worst = f"worst: {report.worst_generator[condition]} {report.worst_auc[condition]:.3f}"
        table.add_row("mean", condition, "", "", f"{mean:.3f}", worst)
    return table


def _tell_void(evidence: Evidence, path: Path, config: Config, console: Console) -> None:
    """Warn that the figures say nothing about forgery; with ``export.strict`` that is an error."""
    if evidence.void:
        found = ", ".join(f"{one.shortcut} {one.balanced_accuracy:.3f}" for one in evidence.void)
        text = (
            f"VOID: {found} (balanced accuracy on the aligned set, over "
            f"{evidence.probe_limit:g}): the classes of this split differ in more than forgery. "
            f"Evaluate on content-matched pairs or on classes of one kind of source; {path} has "
            "the figures all the same"
        )
        if config.export.strict:
            raise EvaluationError(text)
        console.print(f"[bold red]{escape(text)}[/]; the model card says so", highlight=False)
