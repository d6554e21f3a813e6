"""Small runs of the training loop, and who watches them."""

from pathlib import Path

import torch

from trainer.config import Config
from trainer.evaluation.metrics import SplitResult
from trainer.training.checkpoint import Best
from trainer.training.loop import build, train
from trainer.training.losses import Loss
from trainer.training.run_logger import StepTimes, Summary


class Quiet:
    """Notes the losses; may die after a step, as a killed process does."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.losses: list[tuple[float, float]] = []
        self.reports: list[tuple[SplitResult, float | None]] = []
        self.computed = 0
        self.paces: list[StepTimes] = []
        self.summary: Summary | None = None
        self._dies_after = dies_after

    def step(self, step: int, steps: int, loss: Loss, computed: int) -> None:
        """Keep the loss."""
        assert step < steps
        self.computed = computed
        self.losses.append((loss.bce, loss.noise))
        if step == self._dies_after:
            raise KeyboardInterrupt

    def epoch(self, step: int, report: SplitResult, explained_variance: float | None) -> None:
        """Keep the report."""
        assert step > 0
        self.reports.append((report, explained_variance))

    def pace(self, pace: StepTimes) -> None:
        """Keep the pace."""
        self.paces.append(pace)

    def finished(self, summary: Summary) -> None:
        """Keep the summary."""
        self.summary = summary


def run(
    config: Config, root: Path, name: str, reporter: Quiet | None = None, *, resume: bool = False
) -> Best:
    """Train into a folder beside the data."""
    material = build(config, root.parent / "cache", lambda _text: None)
    return train(config, material, root.parent / name, reporter or Quiet(), resume=resume)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are the same, bit for bit."""
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )
