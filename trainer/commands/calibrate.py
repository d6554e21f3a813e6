"""``calibrate``: writes calibrate.json: the fit, the two thresholds, and where they fail."""

import argparse

from rich.console import Console

from engines.manifest import OperatingPoint
from trainer.bundle.model_card import Measured, false_alarms
from trainer.commands.chosen import chosen_detector, split
from trainer.commands.options import Environment, Parsers, configured, write_json
from trainer.evaluation.calibration import fit, operating_point
from trainer.evaluation.families import Scored, score
from trainer.training.loop import export_spec

CALIBRATION = "calibrate.json"


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
