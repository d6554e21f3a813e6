"""One cell, trained and judged: the only file of the study that knows how the trainer does it.

In: a ``Task``. Out: an ``Outcome`` and the test logits by image in an .npz. Errors: those of the
parts. A cell whose folder holds a checkpoint goes on from it.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.config import Config
from trainer.config.study import Gate
from trainer.data.sources import Picture, scan
from trainer.detector import Detector
from trainer.evaluation.families import CONDITIONS, Report, family_results, score
from trainer.study.results import FamilyFigure, locked
from trainer.training import checkpoint
from trainer.training.journal import Summary
from trainer.training.loop import classifier, export_spec, gated_classifier, train
from trainer.training.losses import Loss
from trainer.training.pace import Pace
from trainer.training.setup import build, pictures_of

LOGITS = "logits.npz"
OnStep = Callable[[int, int], None]
_LINE_EVERY_S = 30.0


@dataclass(frozen=True)
class Task:
    """What a process needs in order to make a cell."""

    name: str
    config: Config
    gates: tuple[Gate, ...]
    folder: Path
    cache: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a cell."""

    explained_variance: float | None
    validation_auc: float
    best_step: int
    teacher_id: str
    families: tuple[FamilyFigure, ...]
    wall_s: float
    images_per_s: float | None = None  # while training; of the process that ended it


def run_task(task: Task, on_step: OnStep) -> Outcome:
    """Train to the end, score the test split, write the logits."""
    started_s = time.monotonic()
    torch.set_num_threads(task.config.threads)
    task.folder.mkdir(parents=True, exist_ok=True)
    with (
        locked(task.folder / "cell.lock", wait=True),
        (task.folder / "cell.log").open("a", buffering=1) as log,
    ):
        reporter = _Reporter(log.write, on_step)
        # One at a time: what this computes is cached, and the next cell finds it there.
        with locked(task.cache / "study.lock", wait=True):
            material = build(task.config, task.cache, reporter.note)
        resume = (task.folder / checkpoint.LAST).exists()
        best = train(task.config, material, task.folder, reporter, resume=resume)
        families = _judged(task, best.weights, reporter.note)
    return Outcome(
        best.explained_variance,
        best.validation_auc,
        best.step,
        material.lineage.get("teacher_id", ""),
        families,
        time.monotonic() - started_s,
        reporter.images_per_s,
    )


def data_digest(config: Config) -> str:
    """The digest of the files of every split; an error where the data cannot serve the cell."""
    return scan(config.data).digest


def _judged(
    task: Task, weights: dict[str, torch.Tensor], notify: Callable[[str], None]
) -> tuple[FamilyFigure, ...]:
    config = task.config
    detector = Detector.restored(config.detector, weights)
    pictures = pictures_of(scan(config.data).splits["test"], config.data, notify, None)
    arrays: dict[str, NDArray[np.float32]] = {}
    figures = []
    for gate in task.gates:
        infer = classifier(detector) if gate == "off" else gated_classifier(detector)
        for condition in CONDITIONS:
            scored = score(infer, pictures, export_spec(config), condition)
            arrays[f"{gate}_{condition}"] = scored.logit_N
            figures += [
                FamilyFigure(
                    gate=gate,
                    condition=condition,
                    family=one.generator,
                    auc=one.auc,
                    n_fake=one.n_fake,
                    n_real=one.n_real,
                )
                for one in family_results(scored, condition)
            ]
    _save(task.folder / LOGITS, image_keys(pictures), arrays)
    return tuple(figures)


def image_keys(pictures: Sequence[Picture]) -> list[str]:
    """``fake/sd1/0001.png``; with the digest where two folders of one name hold that file."""
    count = Counter(one.source.key for one in pictures)
    return [
        key if count[key] == 1 else f"{key}#{hashlib.sha256(sha256.encode()).hexdigest()[:8]}"
        for key, sha256 in ((one.source.key, one.source.sha256) for one in pictures)
    ]


def _save(path: Path, keys: Sequence[str], arrays: dict[str, NDArray[np.float32]]) -> None:
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez_compressed(file, key=np.array(keys), **arrays)  # type: ignore[arg-type]  # numpy's stub
    partial.replace(path)


class _Reporter:
    """The trainer's reporter: a line in the cell's log now and then, a word to the study."""

    def __init__(self, write: Callable[[str], object], on_step: OnStep) -> None:
        self._write, self._on_step = write, on_step
        self._told_s, self._pace = 0.0, ""
        self.images_per_s: float | None = None

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._write(f"{text}\n")

    def step(self, step: int, steps: int, loss: Loss, computed: int) -> None:
        """After each step."""
        now_s = time.monotonic()
        if now_s - self._told_s >= _LINE_EVERY_S or step + 1 == steps:
            self._told_s = now_s
            self.note(
                f"step {step + 1}/{steps} bce {loss.bce:.3f} noise {loss.noise:.3f} "
                f"targets {computed} {self._pace}"
            )
        self._on_step(step + 1, steps)

    def pace(self, pace: Pace) -> None:
        """Now and then: how fast it goes."""
        self._pace = pace.in_words()

    def finished(self, summary: Summary) -> None:
        """How the training ended."""
        self.note(f"stopped {summary.stopped}, {summary.pace.in_words()}")
        self.images_per_s = summary.pace.images_per_s

    def epoch(self, step: int, report: Report, explained_variance: float | None) -> None:
        """After each validation."""
        self.note(f"step {step} validation {report.mean_auc} explained {explained_variance}")
