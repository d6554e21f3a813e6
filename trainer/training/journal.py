"""What a run leaves to look at: progress.jsonl, run.json and tensorboard's files.

In: figures of steps and validations. Out: files in the run's folder. No errors of its own. A
resumed run goes on where its checkpoint was: later lines, of steps that are done again, go.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from trainer.evaluation.families import Report
from trainer.training.losses import Loss
from trainer.training.pace import Pace

PROGRESS, RUN, TENSORBOARD = "progress.jsonl", "run.json", "tensorboard"


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    step: int
    stopped: str  # "at the end", or why before
    best_step: int
    validation_auc: float
    explained_variance: float | None
    unlearnt: str | None  # why it does not count as ANL
    device: str
    processes: int
    precision: str
    pace: Pace  # of the process that ended it; what was before a resume is not counted


class Journal:
    """Writes while a run goes; only the first process has one."""

    def __init__(self, output: Path, first_step: int) -> None:
        self._output = output
        _forget_after(output / PROGRESS, first_step)
        self._board = SummaryWriter(str(output / TENSORBOARD), purge_step=first_step)

    def step(self, done: int, loss: Loss, rate: float, pace: Pace) -> None:
        """The losses of a step, and the pace of the steps before it."""
        figures = {
            "loss/total": loss.total.item(),
            "loss/bce": loss.bce,
            "loss/noise": loss.noise,
            "loss/globality": loss.glob,
            "train/lr": rate,
            "pace/images_per_s": pace.images_per_s,
            "pace/student_share": pace.share(pace.student_s),
            "pace/teacher_share": pace.share(pace.teacher_s),
            "pace/data_share": pace.share(pace.data_s),
        }
        self._add(done, figures)

    def validation(self, done: int, report: Report, explained: float | None, pace: Pace) -> None:
        """What was measured, and the pace since the validation before."""
        figures = {f"validation/auc_{name}": auc for name, auc in report.mean_auc.items()}
        if explained is not None:
            figures["validation/explained_variance"] = explained
        self._add(done, figures)
        self._board.flush()
        line = {"step": done, "auc": report.mean_auc, "explained_variance": explained}
        with (self._output / PROGRESS).open("a") as file:
            file.write(json.dumps(line | {"pace": pace.as_json()}) + "\n")

    def finished(self, summary: Summary) -> None:
        """Write run.json, and close."""
        content = {**vars(summary), "pace": summary.pace.as_json()}
        partial = self._output / f"{RUN}.part"
        partial.write_text(json.dumps(content, indent=2) + "\n")
        partial.replace(self._output / RUN)

    def close(self) -> None:
        """Let tensorboard's thread go."""
        self._board.close()

    def _add(self, done: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._board.add_scalar(name, value, done)


def _forget_after(path: Path, step: int) -> None:
    """Leave the lines up to a step; a line that a kill broke off goes as well."""
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
    partial = path.with_suffix(".part")
    partial.write_text("".join(kept))
    partial.replace(path)
