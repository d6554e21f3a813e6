"""What a run writes about itself: ``progress.jsonl``, ``run.json`` and tensorboard's files.

In: the figures of steps and validations. Out: files in the run's folder. No errors of its own. A resumed
run continues from its checkpoint: lines of steps that are done again are removed.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch.utils.tensorboard import SummaryWriter

from engines.bundle.files import write_atomically
from trainer.evaluation.metrics import SplitResult
from trainer.training.checkpoint import write_json
from trainer.training.losses import Loss

PROGRESS, RUN, TENSORBOARD = "progress.jsonl", "run.json", "tensorboard"
Part = Literal["student", "teacher", "data", "validation"]
PARTS: tuple[Part, ...] = ("student", "teacher", "data", "validation")


@dataclass(frozen=True)
class StepTimes:
    """What a stretch of a run spent its time on.

    Attributes:
        images: trained on, by all processes together.
        wall_s: seconds of the stretch.
        spent_s: seconds by part: student (forward, backward, update), teacher (targets, computed or
            read), data (waiting for a batch), validation.
    """

    images: int
    wall_s: float
    spent_s: Mapping[Part, float]

    @property
    def images_per_s(self) -> float:
        """Training images per second; the time of validation is left out."""
        training_s = self.wall_s - self.spent_s["validation"]
        return self.images / training_s if training_s > 0 else 0.0

    def share(self, part: Part) -> float:
        """A part of the stretch, 0 to 1."""
        return self.spent_s[part] / self.wall_s if self.wall_s > 0 else 0.0

    def since(self, before: "StepTimes") -> "StepTimes":
        """The stretch between an earlier total and this one."""
        spent_s = {part: self.spent_s[part] - before.spent_s[part] for part in PARTS}
        return StepTimes(self.images - before.images, self.wall_s - before.wall_s, spent_s)

    def as_json(self) -> dict[str, float]:
        """Plain values, for a file."""
        shares = {f"{part}_share": round(self.share(part), 4) for part in PARTS}
        speed = {"wall_s": round(self.wall_s, 3), "images_per_s": round(self.images_per_s, 3)}
        return {"images": self.images, **speed, **shares}

    def __str__(self) -> str:
        shares = ", ".join(f"{part} {self.share(part):.0%}" for part in PARTS)
        return f"{self.images_per_s:.1f} images/s ({shares})"


class StepTimer:
    """Sums up what a run spends its time on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._started_s, self._images = clock, clock(), 0
        self._spent_s = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def timed(self, part: Part) -> Iterator[None]:
        """Count the time of the block as this part."""
        began_s = self._clock()
        try:
            yield
        finally:
            self._spent_s[part] += self._clock() - began_s

    def trained(self, images: int) -> None:
        """Count training images."""
        self._images += images

    def total(self) -> StepTimes:
        """Everything since the timer was made."""
        return StepTimes(self._images, self._clock() - self._started_s, dict(self._spent_s))


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    step: int
    stopped: str  # "at the end", or why it stopped early
    best_step: int
    validation_auc: float
    explained_variance: float | None
    unlearnt: str | None  # why it does not count as ANL
    device: str
    processes: int
    precision: str
    pace: StepTimes  # of the process that ended it, since its last resume


class RunLogger:
    """Writes while a run trains; only the first process has one."""

    def __init__(self, output: Path, first_step: int) -> None:
        self._output = output
        _forget_after(output / PROGRESS, first_step)
        self._board = SummaryWriter(str(output / TENSORBOARD), purge_step=first_step)

    def step(self, done: int, loss: Loss, rate: float, times: StepTimes) -> None:
        """Write the losses of a step, and the pace of the steps before it."""
        figures = {
            "loss/total": loss.total.item(),
            "loss/bce": loss.bce,
            "loss/noise": loss.noise,
            "loss/globality": loss.glob,
            "train/lr": rate,
            "pace/images_per_s": times.images_per_s,
            **{f"pace/{part}_share": times.share(part) for part in PARTS[:3]},
        }
        self._add(done, figures)

    def validation(
        self, done: int, report: SplitResult, explained: float | None, times: StepTimes
    ) -> None:
        """Write a validation, and the pace since the one before."""
        figures = {f"validation/auc_{name}": auc for name, auc in report.mean_auc.items()}
        if explained is not None:
            figures["validation/explained_variance"] = explained
        self._add(done, figures)
        self._board.flush()
        line = {"step": done, "auc": report.mean_auc, "explained_variance": explained}
        with (self._output / PROGRESS).open("a") as file:
            file.write(json.dumps(line | {"pace": times.as_json()}) + "\n")

    def finished(self, summary: Summary) -> None:
        """Write run.json."""
        write_json(self._output / RUN, {**vars(summary), "pace": summary.pace.as_json()})

    def close(self) -> None:
        """Stop tensorboard's thread."""
        self._board.close()

    def _add(self, done: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._board.add_scalar(name, value, done)


def _forget_after(path: Path, step: int) -> None:
    """Keep the lines up to a step; a line that a kill cut short goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] > step:
                break
        except ValueError:
            break
        kept.append(f"{line}\n")
    write_atomically(path, "".join(kept))
