"""``train``: writes last.pt, best.pt, progress.jsonl, run.json and tensorboard's files.

``accelerate launch -m trainer train ...`` runs it in several processes, one per GPU; only the first one
prints and writes.
"""

import argparse

from rich.console import Console

from trainer.check import quick_checks, refuse_errors, report
from trainer.cli import Environment, add_common, configured
from trainer.data.dataset import scan
from trainer.evaluation.metrics import SplitResult
from trainer.progress import ProgressBar
from trainer.training.loop import Devices, build, train
from trainer.training.losses import Loss
from trainer.training.run_logger import StepTimes, Summary


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_common(parser)
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Train to the end."""
    config = configured(options, environment)
    devices = Devices()
    if not devices.is_main:
        console = Console(quiet=True)
    with ProgressBar(console, "training") as bar:
        reporter = ConsoleReporter(bar)
        # The other processes find in the cache what the first one asked of the teacher.
        with devices.main_first():
            dataset = scan(config.data)
            rows = quick_checks(config, dataset)
            report(rows, bar.note)
            refuse_errors(rows, strict=config.data.strict)
            inputs = build(config, options.cache, bar.note, dataset)
        best = train(
            config, inputs, options.output, reporter, resume=options.resume, devices=devices
        )
    console.print(
        f"best: step {best.step}, validation AUC {best.validation_auc:.4f}; next: finish "
        "(calibrate, evaluate, export)"
    )


class ConsoleReporter:
    """Shows a run's progress on a bar."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar
        self._pace = ""

    def step(self, step: int, steps: int, loss: Loss, computed: int) -> None:
        """Show each training step."""
        text = (
            f"step {step + 1}/{steps}  bce {loss.bce:.3f} noise {loss.noise:.3f} "
            f"glob {loss.glob:.3f}  targets {computed}{self._pace}"
        )
        self._bar.show(step + 1, steps, text)

    def pace(self, times: StepTimes) -> None:
        """Keep the pace, for the next step's text."""
        self._pace = f"  {times}"

    def epoch(self, step: int, report: SplitResult, explained_variance: float | None) -> None:
        """Print a line for each validation."""
        means = "  ".join(f"{name} {auc:.4f}" for name, auc in report.mean_auc.items())
        learnt = "" if explained_variance is None else f"  noise explained {explained_variance:.3f}"
        self._bar.note(
            f"step {step}: validation AUC {means or '(no real and fake to validate)'}{learnt}"
        )

    def finished(self, summary: Summary) -> None:
        """Print how the run ended, and a warning where it does not count as ANL."""
        self._bar.note(f"stopped {summary.stopped}, step {summary.step}: {summary.pace}")
        if summary.unlearnt:
            self._bar.warn("not ANL:", summary.unlearnt)
