"""A real photograph for tests of what regenerates photographs."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.preprocess import Limits, decode_image

_SAMPLES = Path(__file__).parents[2] / "deploy" / "embedded" / "samples" / "real"
_BITS8_MAX = 255.0


def photograph_px(side_px: int) -> NDArray[np.uint8]:
    """The central square of one of the demonstration's photographs."""
    pixels_HWC = decode_image((_SAMPLES / "000.jpg").read_bytes(), Limits()).pixels_HWC
    top, left = ((length - side_px) // 2 for length in pixels_HWC.shape[:2])
    return np.ascontiguousarray(pixels_HWC[top : top + side_px, left : left + side_px])


def psnr_db(one_HWC: NDArray[np.uint8], other_HWC: NDArray[np.uint8]) -> float:
    """The peak signal-to-noise ratio of two pictures."""
    error = np.mean((one_HWC.astype(float) - other_HWC.astype(float)) ** 2)
    return 20 * math.log10(_BITS8_MAX) - 10 * math.log10(max(float(error), 1e-9))
