"""The moving average of the weights, which is what a run validates and keeps.

In: a detector after each step. Out: its averaged weights. No errors.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.detector import Detector


class MovingAverage:
    """Follows every floating-point weight and running statistic; a decay of 0 is no average."""

    def __init__(self, detector: Detector, decay: float) -> None:
        self._detector, self._decay = detector, decay
        self._mean = {name: value.clone() for name, value in self._floats().items()}

    def follow(self, step: int) -> None:
        """After a step; closely at first, when weights still move far."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in self._floats().items():
            self._mean[name].mul_(decay).add_(value, alpha=1 - decay)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the averaged detector, on the CPU."""
        mixed = self._detector.state_dict() | self._mean
        return {name: value.cpu().clone() for name, value in mixed.items()}

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return self._mean

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """From a checkpoint."""
        self._mean = {name: value.to(device) for name, value in state.items()}

    def _floats(self) -> dict[str, Tensor]:
        return {
            name: value.detach()
            for name, value in self._detector.state_dict().items()
            if value.is_floating_point()
        }
