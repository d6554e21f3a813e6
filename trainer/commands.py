"""What each command does, in the order in which a person gives them.

In: a configuration and the arguments. Out: files in the run's folder, and a bundle. Errors: those
of the parts, and ``CheckpointError`` where an earlier command is missing.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

from engines.manifest import OperatingPoint
from trainer import checkpoint
from trainer.calibrate import fit, operating_point
from trainer.config import Config
from trainer.console import ConsoleReporter, report_table
from trainer.data import Picture, scan
from trainer.detector import Detector
from trainer.evaluate import FamilyResult, Infer, Report, Scored, evaluate, report, score
from trainer.export import export_bundle
from trainer.model_card import Measured, false_alarms, model_card
from trainer.package import build_manifest
from trainer.setup import build, pictures_of
from trainer.train import classifier, export_spec, gated_classifier, train

EVALUATION, CALIBRATION = "evaluate-test.json", "calibrate.json"


def train_command(config: Config, options: argparse.Namespace, console: Console) -> None:
    """``train``: writes last.pt, best.pt and progress.jsonl."""
    with ConsoleReporter(console) as reporter:
        material = build(config, options.cache, reporter.note)
        best = train(config, material, options.output, reporter, resume=options.resume)
    console.print(
        f"best: step {best.step}, validation AUC {best.validation_auc:.4f}; "
        "next: evaluate, calibrate, export"
    )


def evaluate_command(config: Config, options: argparse.Namespace, console: Console) -> None:
    """``evaluate``: writes evaluate-SPLIT.json."""
    infer, _ = chosen_detector(config, options.output)
    found = evaluate(infer, split(config, options.split, console), export_spec(config))
    write_json(options.output / f"evaluate-{options.split}.json", found.as_json())
    console.print(report_table(found, f"{options.split}, {options.output}"))


def calibrate_command(config: Config, options: argparse.Namespace, console: Console) -> None:
    """``calibrate``: writes calibrate.json: the fit, the two thresholds, and where they fail."""
    infer, _ = chosen_detector(config, options.output)
    spec = export_spec(config)
    fitted_on = score(infer, split(config, "calibration", console), spec, "native")
    fitted = fit(fitted_on.of(0), fitted_on.of(1), config.export.calibration)
    reals = score(infer, split(config, "threshold", console), spec, "native")
    real_score_N = fitted.score(reals.of(0))
    review = operating_point(real_score_N, config.export.review_fpr)
    block = operating_point(real_score_N, config.export.block_fpr)
    measured = Measured(
        fit=fitted,
        review=review,
        block=block,
        fitted_on=_folders(fitted_on),
        thresholds_on=_folders(reals),
        false_alarms=false_alarms(reals, fitted, review),
    )
    write_json(options.output / CALIBRATION, measured.as_json())
    console.print(
        f"{fitted.method}: ECE {fitted.ece_before:.3f} -> {fitted.ece:.3f}, "
        f"NLL {fitted.nll_before:.3f} -> {fitted.nll:.3f} on {fitted.n} images"
    )
    for name, point in (("review", review), ("block", block)):
        console.print(_in_words(name, point))


def _in_words(name: str, point: OperatingPoint) -> str:
    return (
        f"{name}: score >= {point.threshold:.4f}, false-positive rate {point.fpr:.3%} "
        f"(95 %: {point.fpr_ci_low:.3%} to {point.fpr_ci_high:.3%}) of {point.n_real} real images"
    )


def _folders(scored: Scored) -> str:
    names = [f"real/{one}" for one in scored.folders(0)]
    return ", ".join(names + [f"fake/{one}" for one in scored.folders(1)])


def export_command(config: Config, options: argparse.Namespace, console: Console) -> None:
    """``export``: writes the bundle and loads it as a worker would."""
    infer, detector = chosen_detector(config, options.output)
    best, lineage = checkpoint.load_best(options.output, config)
    tested = _report(_read_json(options.output / EVALUATION, "evaluate"))
    measured = Measured.from_json(_read_json(options.output / CALIBRATION, "calibrate"))
    manifest = build_manifest(config, best, lineage, tested, measured)
    card = model_card(config, best, lineage, tested, measured)
    exported = export_bundle(detector, infer, manifest, card, options.bundle)
    console.print(
        f"{exported.directory}: {manifest.name} {manifest.version}, {exported.sha256}; "
        f"torch and onnxruntime differ by at most {exported.parity_max_difference:.2e}"
    )


def chosen_detector(config: Config, folder: Path) -> tuple[Infer, Detector]:
    """The weights of ``best.pt``, as the graph that is exported."""
    best, _ = checkpoint.load_best(folder, config)
    detector = Detector(config.detector.model_copy(update={"weights": ""}))
    detector.load_state_dict(best.weights)
    detector.eval()
    infer = classifier if config.export.gate == "off" else gated_classifier
    return infer(detector), detector


def split(config: Config, name: str, console: Console) -> list[Picture]:
    """The pictures of one split, whole."""
    return pictures_of(scan(config.data).splits[name], config, console.print, None)


def write_json(path: Path, content: object) -> None:
    """Write a file of results, whole or not at all."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)


def _read_json(path: Path, command: str) -> dict[str, object]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise checkpoint.CheckpointError(
            f"{path} does not exist: run python -m trainer {command} first"
        ) from error
    if not isinstance(content, dict):
        raise checkpoint.CheckpointError(f"{path} is no result of {command}: run it again")
    return content


def _report(content: dict[str, object]) -> Report:
    families = content["families"]
    if not isinstance(families, list):
        raise checkpoint.CheckpointError(f"{EVALUATION} lists no families: run evaluate again")
    return report([FamilyResult(**one) for one in families])
