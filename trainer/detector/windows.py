"""Which part of each crop the noise is wanted for.

In: maps [B, C, H, W]. Out: their windows. No errors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """(top, left) of each window in pixels, and the side that all share."""

    origin_px: tuple[tuple[int, int], ...]
    side_px: int


def cut(x_BCHW: Tensor, windows: Windows, stride: int = 1) -> Tensor:
    """The windows [B, C, side, side] of a map whose places are ``stride`` pixels apart."""
    side = windows.side_px // stride
    return torch.stack(
        [
            one[:, top // stride : top // stride + side, left // stride : left // stride + side]
            for one, (top, left) in zip(x_BCHW, windows.origin_px, strict=True)
        ]
    )
