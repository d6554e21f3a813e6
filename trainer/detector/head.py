"""The noise head: what the teacher sees in every pixel, predicted from the student's own stem.

In: normalised crops [B, 3, H, W], the backbone's shallow features, its stem. Out: the noise
[B, channels, H / stride, W / stride]. Errors: ``DetectorError`` for a stem that cannot be shared.

The head works at full resolution, because the signal is in single pixels, and still shapes the
backbone: its first layer has the filters of the backbone's own stem, applied at stride 1, with the
features of stride 2 beside it. It looks at the picture less its local mean, amplified: the noise
is a hundredth of the picture, and a head that must first learn to cancel the rest took ten times
the steps (docs/concepts/anl.md). A teacher of latents has its target at a stride: only the last layer
strides then, so that every pixel is still looked at.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import DetectorConfig
from trainer.detector.errors import DetectorError

# What the head's three convolutions, the stem and the local mean see beyond a pixel is five; even,
# because shallow features are two pixels apart.
HALO_PX = 6
_RESIDUAL_GAIN = 16.0  # brings the picture less its local mean to about 1
_SHALLOW_GAIN = 0.1  # shallow features are not normalised, and must not drown the residual
_LAST = "layers.4.weight"
_GRID_PX = 8  # crops and windows lie on it


@dataclass(frozen=True)
class TargetShape:
    """What a teacher's noise looks like.

    Attributes:
        channels: 3 of a pixel-space teacher; 4 or 16 of one of latents.
        stride: pixels from one place of the target to the next; 1, or a power of two.
    """

    channels: int = 3
    stride: int = 1

    def __post_init__(self) -> None:
        if _GRID_PX % self.stride:
            raise DetectorError(
                f"the teacher has a target for every {self.stride} px, which does not fit windows on "
                f"a grid of {_GRID_PX} px: choose a teacher whose autoencoder shrinks by 2, 4 or 8"
            )

    @property
    def halo_px(self) -> int:
        """What the head must see around a window; a multiple of the stride."""
        return -(-HALO_PX // self.stride) * self.stride


PIXELS = TargetShape()


class NoiseHead(nn.Module):
    """Three convolutions over the input, the dense stem and shallow features."""

    def __init__(
        self, stem: nn.Conv2d, shallow: int, config: DetectorConfig, target: TargetShape
    ) -> None:
        super().__init__()
        self.target, self._kind = target, config.head
        channels, width = 3 + 3, config.head_width
        if self._kind != "residual":
            channels += shallow
        if self._kind == "dense_stem":
            if stem.kernel_size not in {(3, 3), (5, 5), (7, 7)}:
                raise DetectorError(
                    f"the stem's kernel is {stem.kernel_size}: set detector.head = 'upsample'"
                )
            channels += stem.out_channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            _last_layer(width, target),
        )

    def forward(self, x_BCHW: Tensor, shallow_BCHW: Tensor, stem: nn.Conv2d) -> Tensor:
        """Noise [B, channels, H / stride, W / stride] of x [B, 3, H, W] and shallow features."""
        residual = local_residual(x_BCHW)
        parts = [x_BCHW, residual]
        if self._kind != "residual":
            size = (x_BCHW.shape[2], x_BCHW.shape[3])
            parts.append(functional.interpolate(shallow_BCHW * _SHALLOW_GAIN, size=size))
        if self._kind == "dense_stem":
            parts.append(dense_stem(residual, stem))
        eps: Tensor = self.layers(torch.cat(parts, dim=1))
        return eps


def _last_layer(width: int, target: TargetShape) -> nn.Conv2d:
    """To the target's channels; one place of a strided target sees its own pixels."""
    if target.stride == 1:
        return nn.Conv2d(width, target.channels, 3, padding=1)
    return nn.Conv2d(width, target.channels, target.stride, stride=target.stride)


def target_of(weights: dict[str, Tensor], prefix: str = "head.") -> TargetShape:
    """The shape of the target that a head's weights were trained for."""
    last = weights.get(f"{prefix}{_LAST}")
    if last is None:
        raise DetectorError("these weights hold no noise head: train again")
    side = last.shape[2]
    return TargetShape(last.shape[0], 1 if side == 3 else side)  # noqa: PLR2004  as _last_layer


def local_residual(x_BCHW: Tensor) -> Tensor:
    """The picture less its local mean, amplified to about 1."""
    return (x_BCHW - local_mean(x_BCHW)) * _RESIDUAL_GAIN


def local_mean(x_BCHW: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels."""
    padded = functional.pad(x_BCHW, (1, 1, 1, 1), mode="reflect")
    return functional.avg_pool2d(padded, 3, stride=1)


def dense_stem(x_BCHW: Tensor, stem: nn.Conv2d) -> Tensor:
    """The stem's filters at stride 1, each scaled to a gain of one at most, then a ReLU.

    Pretrained filters are of very different strength; unscaled, they saturate what follows.
    """
    gain = stem.weight.abs().sum(dim=(1, 2, 3), keepdim=True) + 1e-3
    return functional.relu(
        functional.conv2d(x_BCHW, stem.weight / gain, padding=stem.kernel_size[0] // 2)
    )
