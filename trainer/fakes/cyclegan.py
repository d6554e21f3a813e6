"""CycleGAN's generator: a photograph, translated into another style at its own size.

In: uint8 RGB, sides multiples of four. Out: the same size, its colours and textures the
network's. Errors: ``RegeneratorError``.

The network is the one of "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks" (Zhu et al., ICCV 2017) for large pictures, with nine residual blocks and norms that
learn their scale; the weights are those of the package vintagify (MIT), which ages photographs.
"""

import hashlib
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.fakes.regenerator import RegeneratorError, from_unit, to_unit

_WIDTH = 64
_BLOCKS = 9
_PREFIX = "model."


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width, affine=True),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width, affine=True),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = x_BCHW + self.block(x_BCHW)
        return out


def build_generator() -> nn.Sequential:
    """[B, 3, H, W] on [-1, 1] -> the same; the layers' numbers are those of the weights."""
    widths = (_WIDTH, 2 * _WIDTH, 4 * _WIDTH)
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), *_normed(nn.Conv2d(3, _WIDTH, 7), _WIDTH)]
    for narrow, wide in pairwise(widths):
        layers += _normed(nn.Conv2d(narrow, wide, 3, stride=2, padding=1), wide)
    layers += [_Residual(widths[-1]) for _ in range(_BLOCKS)]
    for wide, narrow in pairwise(reversed(widths)):
        up = nn.ConvTranspose2d(wide, narrow, 3, stride=2, padding=1, output_padding=1)
        layers += _normed(up, narrow)
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(_WIDTH, 3, 7), nn.Tanh()]
    return nn.Sequential(*layers)


def _normed(convolution: nn.Module, width: int) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(width, affine=True), nn.ReLU()]


class CycleGan:
    """The generator with its weights, frozen."""

    multiple_px = 4

    def __init__(self, weights: Path) -> None:
        self._generator = build_generator()
        try:
            self.digest = hashlib.sha256(weights.read_bytes()).hexdigest()
            state = torch.load(weights, map_location="cpu", weights_only=True)
            named = {key.removeprefix(_PREFIX): value for key, value in state.items()}
            self._generator.load_state_dict(named)
        except (OSError, RuntimeError, AttributeError, EOFError, UnpicklingError) as error:
            raise RegeneratorError(
                f"{weights} holds no CycleGAN generator of nine blocks ({error}): give "
                "resources/G_A2B_epoch33.pth of the package vintagify"
            ) from error
        self._generator.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate at full size."""
        drawn = self._generator(to_unit(pixels_HWC) * 2 - 1)
        return from_unit((drawn + 1) / 2)
