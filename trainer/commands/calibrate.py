"""``calibrate``: writes calibrate.json: the fit, every threshold set, and false alarms by folder."""

import argparse

from rich.console import Console

from trainer.cli import Environment, add_common, configured
from trainer.data.dataset import pictures_of
from trainer.evaluation.calibration import CalibrationResult, fit, measure_thresholds, points
from trainer.evaluation.scoring import ScoredPictures, score
from trainer.training.checkpoint import (
    CALIBRATED_ON,
    CALIBRATION,
    exported_graph,
    load_run,
    measured_with,
    write_json,
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_common(parser)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Fit on the calibration split, set thresholds on the photographs of the threshold split."""
    config = configured(options, environment)
    finished = load_run(options.output, config)
    infer = exported_graph(finished.detector(config), config)
    dataset, spec = finished.judging_data(config), config.export.preprocess
    calibration, threshold = (
        score(
            infer,
            pictures_of(dataset.splits[split], config.data, console.print, None),
            spec,
            "native",
        )
        for split in CALIBRATED_ON
    )
    fitted = fit(calibration.of(0), calibration.of(1), config.export.calibration)
    result = CalibrationResult(
        fit=fitted,
        sets=measure_thresholds(
            threshold, fitted, config.export.rates(), config.evaluation.out_of_domain
        ),
        fitted_on=_folders(calibration),
    )
    content = result.as_json() | measured_with(config, *CALIBRATED_ON)
    write_json(options.output / CALIBRATION, content)
    console.print(
        f"{fitted.method}: ECE {fitted.ece_before:.3f} -> {fitted.ece:.3f}, "
        f"NLL {fitted.nll_before:.3f} -> {fitted.nll:.3f} on {fitted.n} images"
    )
    for thresholds in result.sets:
        for band, point in points(thresholds).items():
            console.print(
                f"{thresholds.name} {band}: score >= {point.threshold:.4f}, false-positive rate "
                f"{point.fpr:.3%} (95 %: {point.fpr_ci_low:.3%} to {point.fpr_ci_high:.3%}) of "
                f"{point.n_real} real images"
            )


def _folders(scored: ScoredPictures) -> str:
    names = [f"real/{folder}" for folder in scored.folders(0)]
    return ", ".join(names + [f"fake/{folder}" for folder in scored.folders(1)])
