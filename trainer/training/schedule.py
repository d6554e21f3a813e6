"""How long a run is and how fast it learns: pure functions of the configuration.

In: a configuration, the size of the data, the number of processes. Out: a ``Plan``, learning
rates, seeds, parameter groups. No errors.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import nn

from trainer.config import Config, TrainConfig


@dataclass(frozen=True)
class Plan:
    """The shape of a run.

    Attributes:
        steps: updates of the weights.
        validate_every: steps from one validation to the next; there is one at the end as well.
        accumulate: batches of each process to a step.
        processes: that train together.
    """

    steps: int
    validate_every: int
    accumulate: int
    processes: int

    def draw(self, step: int, part: int, rank: int) -> int:
        """The number of a batch among all that are ever drawn: no two processes share one."""
        return (step * self.accumulate + part) * self.processes + rank

    def validates(self, done: int) -> bool:
        """Whether there is a validation after so many steps."""
        return done % self.validate_every == 0 or done == self.steps


def plan_of(config: Config, batches_per_epoch: int, processes: int) -> Plan:
    """The plan of a run; an epoch is shared out among the processes."""
    settings = config.train
    per_epoch = max(1, batches_per_epoch // (settings.accumulate * processes))
    return Plan(
        steps=settings.steps or per_epoch * settings.epochs,
        validate_every=settings.validate_every_steps or per_epoch,
        accumulate=settings.accumulate,
        processes=processes,
    )


def hash_of(seed: int, draw: int) -> int:
    """A seed for one batch, far from that of the next."""
    return int(np.random.SeedSequence((seed, draw)).generate_state(1, np.uint64)[0] >> 1)


def learning_rate(config: Config, step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    warmup = min(config.train.warmup_steps, steps // 2)
    if step < warmup:
        return config.train.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.train.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def parameter_groups(detector: nn.Module, settings: TrainConfig) -> list[dict[str, object]]:
    """Weights decay, norms and biases do not; the noise head has a pace of its own."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, value in detector.named_parameters():
        groups.setdefault((name.startswith("head."), value.ndim > 1), []).append(value)
    return [
        {
            "params": values,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "pace": settings.head_lr_factor if in_head else 1.0,
        }
        for (in_head, decays), values in groups.items()
    ]
