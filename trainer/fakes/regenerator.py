"""What every regenerator is: a photograph goes in, a picture of the same thing and size comes out.

In: uint8 RGB [H, W, 3], whose sides are multiples of ``multiple_px``. Out: the same shape. What
differs from the photograph is what the network could not carry and what its decoder left behind.
Errors: ``RegeneratorError``.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainer.errors import TrainerError

PACKAGE = "package:"


class RegeneratorError(TrainerError):
    """A regenerator that cannot be loaded or used; the message says what to do."""


class Regenerator(Protocol):
    """A network that draws a photograph anew."""

    digest: str  # of its weights: what it made is filed under it
    multiple_px: int

    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The same picture, uint8 RGB of the same shape, drawn by the network."""
        ...


def located(text: str, field: str) -> Path:
    """A file, or ``package:NAME/FILE`` inside an installed package, which is not imported."""
    if not text.startswith(PACKAGE):
        path = Path(text)
    else:
        package, _, inner = text.removeprefix(PACKAGE).partition("/")
        spec = find_spec(package)
        places = list(spec.submodule_search_locations or []) if spec else []
        if not places:
            raise RegeneratorError(
                f"{field} = {text!r}: the package is not installed; from a checkout: pip install '.[fakes]'"
            )
        path = Path(places[0]) / inner
    if not path.exists():
        raise RegeneratorError(f"{field}: {path} does not exist; name a file that does")
    return path


def random_of(pixels_HWC: NDArray[np.uint8]) -> np.random.Generator:
    """Draws that a picture's own digest seeds: a set that is made again is the same."""
    digest = hashlib.sha256(pixels_HWC.tobytes()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def to_unit(pixels_HWC: NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] -> fp32 [1, 3, H, W] on [0, 1]."""
    return torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1)[None].float() / 255


def from_unit(x_BCHW: Tensor) -> NDArray[np.uint8]:
    """fp32 [1, 3, H, W] on about [0, 1] -> uint8 [H, W, 3]; what is outside is clipped."""
    scaled = (x_BCHW[0].detach().clamp(0, 1) * 255).round().to(torch.uint8)
    pixels_HWC: NDArray[np.uint8] = scaled.permute(1, 2, 0).contiguous().numpy()
    return pixels_HWC


def shrunk(pixels_HWC: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The picture at a fraction of its size (bicubic, antialiased), as super-resolvers expect."""
    height, width = pixels_HWC.shape[:2]
    size = (width // factor, height // factor)
    return np.asarray(Image.fromarray(pixels_HWC).resize(size, Image.Resampling.BICUBIC))
