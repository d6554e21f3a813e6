"""``export``: writes the bundle and loads it as a worker would."""

import argparse
from pathlib import Path

from rich.console import Console

from trainer.bundle.development import EVALUATION, findings_of, read_development
from trainer.bundle.export import ExportError, export_bundle
from trainer.bundle.model_card import model_card
from trainer.bundle.package import build_manifest
from trainer.commands.calibrate import read_calibration
from trainer.commands.chosen import chosen_detector
from trainer.commands.options import Environment, Parsers, configured
from trainer.evaluation.families import report_from_json
from trainer.training import checkpoint
from trainer.training.claim import unlearnt
from trainer.training.measured_on import refuse_other_files, refuse_other_scoring
from trainer.training.results import read_json


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = parsers.add_parser("export", parents=[common], help="write a bundle")
    parser.add_argument("--bundle", type=Path, required=True, help="a folder; must not exist")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Write the bundle of the chosen weights, with what was measured of them."""
    config = configured(options, environment)
    infer, detector = chosen_detector(config, options.output)
    best, lineage = checkpoint.load_best(options.output, config)
    why_not = unlearnt(config, best)
    if why_not and not config.export.allow_unlearnt_target:
        raise ExportError(
            f"{why_not}: train longer, raise loss.lambda_noise or train.head_lr_factor, or set "
            "export.allow_unlearnt_target = true, and the card will say so"
        )
    evaluated = read_json(options.output / EVALUATION, "evaluate")
    tested = report_from_json(evaluated, options.output / EVALUATION)
    again = "run python -m trainer evaluate again"
    refuse_other_files(evaluated, config, options.output / EVALUATION, ("test",), again)
    refuse_other_scoring(evaluated, config, options.output / EVALUATION, again)
    measured = read_calibration(config, options.output)
    manifest = build_manifest(config, best, lineage, tested, measured)
    development = read_development(config)
    card = model_card(config, best, lineage, tested, measured, findings_of(evaluated), development)
    exported = export_bundle(detector, infer, manifest, card, options.bundle)
    console.print(
        f"{exported.directory}: {manifest.name} {manifest.version}, {exported.sha256}; "
        f"torch and onnxruntime differ by at most {exported.parity_max_difference:.2e}"
    )
