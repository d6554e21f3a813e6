"""What a finished run left: its chosen weights as a function, and the pictures of a split that may judge it.

In: a configuration, a run's folder. Out: logits, pictures. Errors: those of the checkpoint and the data.
"""

from pathlib import Path

from rich.console import Console

from trainer.config import Config
from trainer.data.dataset import Dataset, Picture, scan
from trainer.detector import Detector, classifier, gated_classifier
from trainer.evaluation.families import Infer
from trainer.training import checkpoint
from trainer.training.initial_weights import refuse_trained_on
from trainer.training.setup import pictures_of
from trainer.training.validation import unlearnt


def chosen_detector(config: Config, folder: Path) -> tuple[Infer, Detector]:
    """The weights of ``best.pt``, as the graph that is exported."""
    best, _ = checkpoint.load_best(folder, config)
    detector = Detector.restored(config.detector, best.weights)
    infer = classifier if config.export.gate == "off" else gated_classifier
    return infer(detector), detector


def tell_if_unlearnt(config: Config, folder: Path, console: Console) -> None:
    """Say it where a run must not be called ANL."""
    best, _ = checkpoint.load_best(folder, config)
    why_not = unlearnt(config, best)
    if why_not:
        console.print(f"[bold red]not ANL:[/] {why_not}", highlight=False)


def judging_data(config: Config, folder: Path) -> Dataset:
    """All splits; those that judge may have changed since training, and hold nothing that it saw."""
    _, lineage = checkpoint.load_best(folder, config)
    dataset = scan(config.data)
    refuse_trained_on(folder, lineage, dataset)
    return dataset


def split(config: Config, folder: Path, name: str, console: Console) -> list[Picture]:
    """The pictures of one split, whole."""
    dataset = judging_data(config, folder)
    return pictures_of(dataset.splits[name], config.data, console.print, None)
