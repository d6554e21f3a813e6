"""What a person sees of a run: progress bars on a terminal, plain lines in a file.

In: the events of training. Out: text on the console. No errors.
"""

from rich.table import Table

from trainer.evaluation.families import Report
from trainer.progress import ProgressBar
from trainer.training.journal import Summary
from trainer.training.losses import Loss
from trainer.training.pace import Pace


class ConsoleReporter:
    """Tells the bar what a training step means."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar
        self._pace = ""

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._bar.note(text)

    def step(self, step: int, steps: int, loss: Loss, computed: int) -> None:
        """After each training step."""
        text = (
            f"step {step + 1}/{steps}  bce {loss.bce:.3f} noise {loss.noise:.3f} "
            f"glob {loss.glob:.3f}{self._pace}  targets {computed}"
        )
        self._bar.show(step + 1, steps, text)

    def pace(self, pace: Pace) -> None:
        """Now and then; shown with the next step."""
        self._pace = f"  {pace.in_words()}"

    def finished(self, summary: Summary) -> None:
        """How the run ended, and, loudly, if it does not count."""
        self.note(f"stopped {summary.stopped}, step {summary.step}: {summary.pace.in_words()}")
        if summary.unlearnt:
            self._bar.warn("not ANL:", summary.unlearnt)

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
