"""Pictures on disk, without loss, whole or not at all."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Notify = Callable[[str], None]
_FAST = 1  # PNG's compression level: a set of fakes is written once and read often


def write_pixels(path: Path, pixels_HWC: NDArray[np.uint8]) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    Image.fromarray(pixels_HWC).save(partial, "PNG", compress_level=_FAST)
    partial.replace(path)


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Read a PNG as uint8 RGB [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
