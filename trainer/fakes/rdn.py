"""A residual dense network: a photograph at a fraction of its size, drawn anew at full size.

In: uint8 RGB, sides multiples of the network's factor. Out: the same size. Errors: ``RegeneratorError``.

The network is the one of "Residual Dense Network for Image Super-Resolution" (Zhang et al., CVPR 2018) with
another end: it enlarges by repeating pixels, and a convolution draws over them. The weights are those of the
npm packages @upscalerjs/esrgan-slim and -medium (MIT), for TensorFlow.js: a folder of theirs, ``models/x2``
to ``models/x8``. How many blocks there are is read off the weights.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainer.fakes.regenerator import RegeneratorError, from_unit, shrunk, to_unit
from trainer.tfjs import TfjsError, keras_layer, read_tfjs

Weights = Mapping[str, NDArray[np.float32]]
_BYTE = 255  # the network takes and gives 0 to 255


class _DenseBlock(nn.Module):
    """Convolutions that each see what all before them found, fused, and added to what came in."""

    def __init__(self, weights: Weights, number: int) -> None:
        super().__init__()
        count = _count(weights, rf"F_{number}_\d+")
        self.convolutions = nn.ModuleList(
            _convolution(weights, f"F_{number}_{index}") for index in range(1, count + 1)
        )
        self.fusion = _convolution(weights, f"LFF_{number}")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        found_BCHW = x_BCHW
        for one in self.convolutions:
            found_BCHW = torch.cat([found_BCHW, functional.relu(one(found_BCHW))], dim=1)
        out: Tensor = x_BCHW + self.fusion(found_BCHW)
        return out


class Generator(nn.Module):
    """[B, 3, H, W] -> [B, 3, factor H, factor W], both on 0 to 255."""

    def __init__(self, weights: Weights, factor: int) -> None:
        super().__init__()
        count = _count(weights, r"LFF_\d+")
        self.first = _convolution(weights, "F_m1")
        self.second = _convolution(weights, "F_0")
        self.blocks = nn.ModuleList(_DenseBlock(weights, one) for one in range(1, count + 1))
        self.fusion = nn.Sequential(*(_convolution(weights, one) for one in ("GFF_1", "GFF_2")))
        self.up = nn.Sequential(
            _convolution(weights, "UPN1"),
            nn.ReLU(),
            _convolution(weights, "UPN2"),
            nn.ReLU(),
            _convolution(weights, "UPN3"),
            nn.Upsample(scale_factor=factor, mode="nearest"),
            _convolution(weights, "SR"),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Enlarge."""
        first = self.first(x_BCHW)
        x = self.second(first)
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        out: Tensor = self.up(first + self.fusion(torch.cat(found, dim=1)))
        return out


class Rdn:
    """The network with its weights, frozen."""

    def __init__(self, folder: Path) -> None:
        try:
            weights = read_tfjs(folder)
            self._factor = _factor(folder)
            self._generator = Generator(weights, self._factor)
            with torch.no_grad():
                self._generator(torch.zeros(1, 3, 4, 4))  # layers that do not fit say so now
        except (TfjsError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RegeneratorError(
                f"{folder} holds no residual dense network ({error}): give models/x2, x3, x4 or x8 of "
                "the npm package @upscalerjs/esrgan-slim or @upscalerjs/esrgan-medium, unpacked"
            ) from error
        self.multiple_px = self._factor
        self.digest = _digest(weights)
        self._generator.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Shrink and draw at full size again."""
        small = to_unit(shrunk(pixels_HWC, self._factor)) * _BYTE
        return from_unit(self._generator(small) / _BYTE)


def _factor(folder: Path) -> int:
    height, width = keras_layer(folder, "UPsample")["size"]
    if height != width:
        raise ValueError(f"it enlarges by {height} and {width}")
    return int(height)


def _count(weights: Weights, pattern: str) -> int:
    """How many layers have such a name."""
    return sum(re.fullmatch(f"{pattern}/kernel", name) is not None for name in weights)


def _convolution(weights: Weights, name: str) -> nn.Conv2d:
    """A convolution that keeps height and width, filled; Keras has [height, width, in, out]."""
    kernel, bias = weights[f"{name}/kernel"], weights[f"{name}/bias"]
    height, _, channels_in, channels = kernel.shape
    convolution = nn.Conv2d(channels_in, channels, height, padding=height // 2)
    filled = {"weight": kernel.transpose(3, 2, 0, 1), "bias": bias}
    convolution.load_state_dict(
        {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in filled.items()}
    )
    return convolution


def _digest(weights: Weights) -> str:
    content = hashlib.sha256()
    for name in sorted(weights):
        content.update(name.encode() + weights[name].tobytes())
    return content.hexdigest()
