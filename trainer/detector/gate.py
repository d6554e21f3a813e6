"""The attention gate: features weighed by where the student itself predicts noise.

In: the last feature map and the predicted noise. Out: the weighed map, and how noisy each place
is. No errors.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Gate(nn.Module):
    """Weighs features by where the student predicts noise."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(1, 1, 1)

    def forward(self, feature_BCHW: Tensor, eps_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(f * (1 + A / mean(A)), E): E is the pooled magnitude of the noise [B, H, W]."""
        size = (feature_BCHW.shape[2], feature_BCHW.shape[3])
        energy_B1HW = pooled(eps_BCHW.abs().mean(dim=1, keepdim=True), size)
        attention = torch.sigmoid(self.scale(energy_B1HW))
        attention = attention / attention.mean(dim=(2, 3), keepdim=True)
        return feature_BCHW * (1 + attention), energy_B1HW[:, 0]


def pooled(energy_B1HW: Tensor, size: tuple[int, int]) -> Tensor:
    """The mean over equal cells; the sides are multiples, as crops and feature maps are."""
    kernel = (energy_B1HW.shape[2] // size[0], energy_B1HW.shape[3] // size[1])
    return functional.avg_pool2d(energy_B1HW, kernel)
