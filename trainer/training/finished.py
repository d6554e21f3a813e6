"""A finished run: its chosen weights, and which pictures may judge it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from trainer.config import Config
from trainer.data.dataset import Dataset, scan
from trainer.detector import Detector, classifier, gated_classifier
from trainer.evaluation.calibration import CalibrationError, CalibrationResult
from trainer.evaluation.scoring import Infer
from trainer.training import checkpoint
from trainer.training.checkpoint import Best, unlearnt
from trainer.training.initial_weights import refuse_trained_on

CALIBRATION = "calibrate.json"
CALIBRATED_ON = ("calibration", "threshold")  # splits
AVERAGED = "averaged"  # in a lineage: a JSON list with an object for each run of a mean


@dataclass(frozen=True)
class FinishedRun:
    """The chosen weights of a run, and where they come from."""

    folder: Path
    best: Best
    lineage: Mapping[str, str]
    sha256: str  # of its best.pt

    @property
    def config(self) -> Config:
        """The configuration that it was trained by."""
        return checkpoint.config_of(self.folder, self.lineage)

    def detector(self, config: Config) -> Detector:
        """The chosen weights, as a detector of this configuration."""
        return Detector.restored(config.detector, self.best.weights)

    def judging_data(self, config: Config) -> Dataset:
        """All splits; those that judge may have changed since training.

        Raises:
            DataError: a split that judges holds a file that the run was trained on.
        """
        dataset = scan(config.data)
        refuse_trained_on(self.folder, self.lineage, dataset)
        return dataset

    def calibration(self, config: Config) -> CalibrationResult:
        """What ``calibrate`` left in the run's folder.

        Raises:
            CalibrationError: it was measured for other threshold sets or rates.
            CheckpointError: it was measured on other files or crops, or there is none.
        """
        path = self.folder / CALIBRATION
        content = checkpoint.read_json(path, "calibrate")
        result = CalibrationResult.from_json(content)
        again = "run python -m trainer calibrate again, and evaluate after it"
        measured, wanted = {one.name: one.rates for one in result.sets}, config.export.rates()
        other = [name for name in {**wanted, **measured} if measured.get(name) != wanted.get(name)]
        if other:
            raise CalibrationError(
                f"{path} was measured for other threshold sets or rates than [export] has now "
                f"({', '.join(other)}): {again}"
            )
        checkpoint.refuse_other_settings(content, config, path, CALIBRATED_ON, again)
        return result


def read_run(folder: Path) -> FinishedRun:
    """Read a run of whatever configuration."""
    best, lineage = checkpoint.read_best(folder)
    return FinishedRun(folder, best, lineage, _digest(folder))


def load_run(folder: Path, config: Config) -> FinishedRun:
    """Read a run; refuse it where another configuration trained it."""
    best, lineage = checkpoint.load_best(folder, config)
    return FinishedRun(folder, best, lineage, _digest(folder))


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / checkpoint.BEST).read_bytes()).hexdigest()


def exported_graph(detector: Detector, config: Config) -> Infer:
    """The detector as the graph that is exported: with or without its gate."""
    graph = classifier if config.export.gate == "off" else gated_classifier
    return graph(detector)


def warn_if_unlearnt(config: Config, run: FinishedRun, console: Console) -> None:
    """Say it where a run must not be called ANL."""
    why_not = unlearnt(config, run.best)
    if why_not:
        console.print(f"[bold red]not ANL:[/] {why_not}", highlight=False)


def describe_mean(lineage: Mapping[str, str]) -> str:
    """Of which runs weights are the mean; empty where they are one run's own."""
    if AVERAGED not in lineage:
        return ""
    runs = json.loads(lineage[AVERAGED])
    return f"the mean of {len(runs)} runs' weights: " + "; ".join(map(_describe_run, runs))


def _describe_run(run: Mapping[str, object]) -> str:
    other = run["other_options"]
    options = (
        [f"`{key}` {value}" for key, value in other.items()] if isinstance(other, dict) else []
    )
    return ", ".join(
        [f"best.pt {run['best']}", f"seed {run['seed']}", f"step {run['step']}", *options]
    )
