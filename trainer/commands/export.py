"""``export``: writes the bundle, with its trained weights beside it, and loads it as a worker would."""

import argparse
from pathlib import Path

from rich.console import Console

from trainer.bundle.export import build_manifest, export_bundle
from trainer.bundle.model_card import EVALUATION, findings_of, model_card, read_development
from trainer.cli import Environment, add_common, configured
from trainer.config import Config
from trainer.errors import ExportError
from trainer.evaluation.metrics import result_from_json
from trainer.training.checkpoint import (
    Best,
    exported_graph,
    load_run,
    read_json,
    refuse_other_settings,
    unlearnt,
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_common(parser)
    parser.add_argument("--bundle", type=Path, required=True, help="a new directory")


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Write the bundle of the chosen weights, with what was measured."""
    config = configured(options, environment)
    finished = load_run(options.output, config)
    best, lineage = finished.best, finished.lineage
    detector = finished.detector(config)
    infer = exported_graph(detector, config)
    why_not = refuse_if_strict(config, best)
    evaluated = read_json(options.output / EVALUATION, "evaluate")
    tested = result_from_json(evaluated, options.output / EVALUATION)
    again = "run python -m trainer evaluate again"
    refuse_other_settings(evaluated, config, options.output / EVALUATION, ("test",), again)
    measured = finished.calibration(config)
    manifest = build_manifest(config, best, lineage, tested, measured)
    development = read_development(config)
    card = model_card(config, best, lineage, tested, measured, findings_of(evaluated), development)
    exported = export_bundle(detector, infer, manifest, card, options.bundle)
    if why_not:
        console.print(f"[bold red]not ANL:[/] {why_not}; the model card says so", highlight=False)
    console.print(
        f"{exported.directory}: {manifest.name} {manifest.version}, {exported.sha256}; "
        f"torch and onnxruntime differ by at most {exported.golden_max_difference:.2e}"
    )


def refuse_if_strict(config: Config, best: Best) -> str | None:
    """Why a run does not count as ANL; with ``export.strict`` that is an error.

    Raises:
        ExportError: the run is not ANL, and the configuration is strict.
    """
    why_not = unlearnt(config, best)
    if why_not and config.export.strict:
        raise ExportError(
            f"{why_not}: train longer, raise loss.lambda_noise or train.head_lr_factor, or set "
            "export.strict = false: the model card will then say so"
        )
    return why_not
