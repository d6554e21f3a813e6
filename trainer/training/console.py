"""What a person sees of a run: progress bars on a terminal, plain lines in a file.

In: the events of training. Out: text on the console. No errors.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from trainer.evaluation.families import Report
from trainer.training.journal import Summary
from trainer.training.losses import Loss
from trainer.training.pace import Pace

_LINE_EVERY_S = 30.0


class ConsoleReporter:
    """A bar with the loss on a terminal; a line every half minute where there is none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._told_s = time.monotonic()
        self._pace = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del kind, error, trace
        self._bar.stop()

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._console.print(text, highlight=False)

    def step(self, step: int, steps: int, loss: Loss, computed: int) -> None:
        """After each training step."""
        text = f"bce {loss.bce:.3f} noise {loss.noise:.3f} glob {loss.glob:.3f}{self._pace}"
        if self._task is None:
            self._task = self._bar.add_task("training", total=steps, loss=text)
        self._bar.update(self._task, completed=step + 1, loss=text)
        now_s = time.monotonic()
        if not self._console.is_terminal and now_s - self._told_s >= _LINE_EVERY_S:
            self._told_s = now_s
            self.note(f"step {step + 1}/{steps}  {text}  targets {computed}")

    def pace(self, pace: Pace) -> None:
        """Now and then; shown with the next step."""
        self._pace = f"  {pace.in_words()}"

    def finished(self, summary: Summary) -> None:
        """How the run ended, and, loudly, if it does not count."""
        self.note(f"stopped {summary.stopped}, step {summary.step}: {summary.pace.in_words()}")
        if summary.unlearnt:
            self._console.print(f"[bold red]not ANL:[/] {summary.unlearnt}", highlight=False)

    def epoch(self, step: int, report: Report, explained_variance: float | None) -> None:
        """After each validation."""
        means = "  ".join(f"{name} {auc:.4f}" for name, auc in report.mean_auc.items())
        learnt = "" if explained_variance is None else f"  noise explained {explained_variance:.3f}"
        self.note(
            f"step {step}: validation AUC {means or '(no real and fake to validate)'}{learnt}"
        )


def report_table(report: Report, title: str) -> Table:
    """A row for each generator and condition, then the mean and the worst."""
    table = Table(title=title)
    for name in ("generator", "condition", "fake", "real", "AUC", "AP", "acc@.5", "real", "fake"):
        table.add_column(name, justify="left" if name in {"generator", "condition"} else "right")
    for one in report.families:
        figures = (one.auc, one.ap, one.accuracy_at_half, one.real_accuracy, one.fake_accuracy)
        table.add_row(
            one.generator,
            one.condition,
            str(one.n_fake),
            str(one.n_real),
            *(f"{figure:.3f}" for figure in figures),
        )
    for condition, mean in report.mean_auc.items():
        worst = f"worst: {report.worst_generator[condition]} {report.worst_auc[condition]:.3f}"
        table.add_row("mean", condition, "", "", f"{mean:.3f}", worst)
    return table
