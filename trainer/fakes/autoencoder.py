"""Small autoencoders of our own: the decoders of the field, in miniature.

In: uint8 RGB, sides multiples of the factor. Out: the same size. Errors: ``RegeneratorError``.

A generator's traces come from how its decoder enlarges: nearest neighbours and a convolution
(latent diffusion), bilinear and a convolution, transposed convolutions (DCGAN and many after it),
pixel shuffle (super-resolution; "Deconvolution and Checkerboard Artifacts", Odena et al., 2016).
Each kind, at 4, 8 or 16 times, is a family of its own, trained here on photographs.
"""

import hashlib
import math
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.fakes.regenerator import RegeneratorError, from_unit, to_unit

Upsampling = Literal["nearest", "bilinear", "transposed", "pixel_shuffle"]
_GROUPS = 4  # of the norms; widths are multiples of it
_LATENT_CHANNELS = {4: 4, 8: 12, 16: 32}  # about a twelfth to a sixth of the picture's numbers


class Autoencoder(nn.Module):
    """[B, 3, H, W] on [0, 1] -> the same, through a latent at 1/factor of the size."""

    def __init__(self, upsampling: Upsampling, factor: int, width: int) -> None:
        super().__init__()
        steps = round(math.log2(factor))
        widths = [min(width * 2**level, 4 * width) for level in range(steps + 1)]
        down: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1), nn.SiLU()]
        for narrow, wide in pairwise(widths):
            down += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.SiLU(), _Refine(wide)]
        latent = _LATENT_CHANNELS[factor]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], latent, 1))
        up: list[nn.Module] = [nn.Conv2d(latent, widths[-1], 3, padding=1), _Refine(widths[-1])]
        for wide, narrow in pairwise(reversed(widths)):
            up += [*_enlarged(upsampling, wide, narrow), nn.SiLU(), _Refine(narrow)]
        self.decoder = nn.Sequential(*up, nn.Conv2d(widths[0], 3, 3, padding=1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Encode and decode."""
        decoded: Tensor = self.decoder(self.encoder(x_BCHW * 2 - 1))
        return (decoded + 1) / 2


class _Refine(nn.Module):
    """A residual block that starts as the identity; without norms, deep ones never left the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(_GROUPS, width),
            nn.SiLU(),
            last,
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = x_BCHW + self.layers(x_BCHW)
        return out


def _enlarged(upsampling: Upsampling, wide: int, narrow: int) -> list[nn.Module]:
    if upsampling == "transposed":
        return [nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1)]
    if upsampling == "pixel_shuffle":
        return [nn.Conv2d(wide, 4 * narrow, 3, padding=1), nn.PixelShuffle(2)]
    return [nn.Upsample(scale_factor=2, mode=upsampling), nn.Conv2d(wide, narrow, 3, padding=1)]


class TrainedAutoencoder:
    """An autoencoder with its weights, frozen."""

    def __init__(self, upsampling: Upsampling, factor: int, width: int, weights: Path) -> None:
        self.multiple_px = factor
        self._network = Autoencoder(upsampling, factor, width)
        try:
            data = weights.read_bytes()
            self._network.load_state_dict(torch.load(weights, weights_only=True))
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            raise RegeneratorError(
                f"{weights} cannot be loaded ({error}): delete it, and it is trained again"
            ) from error
        self.digest = hashlib.sha256(data).hexdigest()
        self._network.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Encode and decode."""
        return from_unit(self._network(to_unit(pixels_HWC)))
