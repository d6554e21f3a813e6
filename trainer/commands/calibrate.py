"""``calibrate``: writes calibrate.json: the fit, every threshold set, and where they fail."""

import argparse
from pathlib import Path

from rich.console import Console

from engines.bundle.manifest import OperatingPoint
from trainer.bundle.model_card import Measured
from trainer.bundle.operating import measure_sets
from trainer.commands import Environment, Parsers, configured
from trainer.commands.chosen import chosen_detector, split
from trainer.config import Config
from trainer.evaluation.calibration import CalibrationError, fit
from trainer.evaluation.families import Scored, score
from trainer.files import write_json
from trainer.training.checkpoint import (
    measured_with,
    read_json,
    refuse_other_settings,
)

CALIBRATION = "calibrate.json"
FITTED_ON = ("calibration", "threshold")
_AGAIN = "run python -m trainer calibrate again, and evaluate after it"


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = parsers.add_parser(
        "calibrate", parents=[common], help="fit the score, set the thresholds"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Fit on the calibration split, set thresholds on the photographs of the threshold split."""
    config = configured(options, environment)
    infer, _ = chosen_detector(config, options.output)
    spec = config.export.preprocess
    fitted_on = score(infer, split(config, options.output, "calibration", console), spec, "native")
    fitted = fit(fitted_on.of(0), fitted_on.of(1), config.export.calibration)
    reals = score(infer, split(config, options.output, "threshold", console), spec, "native")
    measured = Measured(
        fit=fitted,
        sets=measure_sets(reals, fitted, config.export.rates(), config.evaluation.apart),
        fitted_on=_folders(fitted_on),
    )
    content = measured.as_json() | measured_with(config, *FITTED_ON)
    write_json(options.output / CALIBRATION, content)
    console.print(
        f"{fitted.method}: ECE {fitted.ece_before:.3f} -> {fitted.ece:.3f}, "
        f"NLL {fitted.nll_before:.3f} -> {fitted.nll:.3f} on {fitted.n} images"
    )
    for one in measured.sets:
        for band, point in one.points().items():
            console.print(_in_words(f"{one.name} {band}", point))


def read_calibration(config: Config, folder: Path) -> Measured:
    """What ``calibrate`` left in a run's folder, if it is what the configuration asks for now."""
    content = read_json(folder / CALIBRATION, "calibrate")
    measured = Measured.from_json(content)
    found, asked = {one.name: one.asked for one in measured.sets}, config.export.rates()
    other = [name for name in {**asked, **found} if found.get(name) != asked.get(name)]
    if other:
        raise CalibrationError(
            f"{folder / CALIBRATION} was measured for other threshold sets or rates than [export] asks "
            f"for ({', '.join(other)}): {_AGAIN}"
        )
    refuse_other_settings(content, config, folder / CALIBRATION, FITTED_ON, _AGAIN)
    return measured


def _in_words(name: str, point: OperatingPoint) -> str:
    return (
        f"{name}: score >= {point.threshold:.4f}, false-positive rate {point.fpr:.3%} "
        f"(95 %: {point.fpr_ci_low:.3%} to {point.fpr_ci_high:.3%}) of {point.n_real} real images"
    )


def _folders(scored: Scored) -> str:
    names = [f"real/{one}" for one in scored.folders(0)]
    return ", ".join(names + [f"fake/{one}" for one in scored.folders(1)])
