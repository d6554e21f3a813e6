"""What a run trains on, and who is told how it goes.

In: the parts that ``setup`` made. Out: ``Material``, and the protocol ``Reporter``. Errors: those
of the teacher.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from trainer.config import Config
from trainer.data.batches import Batches
from trainer.evaluation.families import Report
from trainer.training.journal import Summary
from trainer.training.losses import Loss
from trainer.training.pace import Pace
from trainer.training.starts import Start
from trainer.training.targets import Statistics, TargetStore, measure
from trainer.training.validation import Validation


class Reporter(Protocol):
    """Who is told how the run goes."""

    def step(self, step: int, steps: int, loss: Loss, computed: int) -> None:
        """After each step; ``computed`` targets were asked of the teacher so far."""
        ...

    def pace(self, pace: Pace) -> None:
        """Now and then: how fast the steps since the last time were."""
        ...

    def epoch(self, step: int, report: Report, explained_variance: float | None) -> None:
        """After each validation."""
        ...

    def finished(self, summary: Summary) -> None:
        """Once, at the end."""
        ...


@dataclass(frozen=True)
class Material:
    """What a run trains on and is checked with."""

    batches: Batches
    validation: Validation
    targets: TargetStore | None
    lineage: dict[str, str]
    start: Start | None = None  # its first weights, where no pretrained file's

    def statistics(self, config: Config) -> Statistics | None:
        """Of the first targets, which training uses itself soon after; None without a teacher."""
        if self.targets is None:
            return None
        count = math.ceil(config.teacher.statistics_crops / self.batches.targets)
        first = [self.batches.targets_of(one).window_images() for one in range(count)]
        return measure(torch.cat([self.targets.raw(one) for one in first]))
