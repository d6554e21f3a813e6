"""What a file tells of itself before anybody looks at the picture.

In: a picture with its file, or crops. Out: ``Traits``. No errors: the file was decoded before.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from trainer.data.dataset import Picture
from trainer.evaluation.families import ALIGNMENT

_GRID_PX = 8
_ALIGNED_MIME = "image/jpeg"
_LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG has it
_SMALLEST = 1e-3  # grey levels: two flat pictures have no ratio


@dataclass(frozen=True)
class Traits:
    """The numbers of one file.

    Attributes:
        size_bytes: of the file; of crops, the mean size of their JPEGs.
        width_px: of the picture, or of a crop.
        height_px: the same.
        mime: the format.
        quantisation: log of the mean entry of the two tables of a JPEG; 0 where there is none.
        blockiness: log of how much larger differences across a grid of 8 px are than others: of
            the grid that begins at the corner, and of the strongest grid, wherever it begins.
    """

    size_bytes: float
    width_px: int
    height_px: int
    mime: str
    quantisation: tuple[float, float]
    blockiness: tuple[float, float]


def native_traits(picture: Picture) -> Traits:
    """Of a file as it came."""
    data = picture.source.read()
    with Image.open(io.BytesIO(data)) as image:
        return Traits(
            size_bytes=len(data),
            width_px=image.width,
            height_px=image.height,
            mime=image.get_format_mimetype() or "unknown",
            quantisation=_quantisation(image),
            blockiness=blockiness(picture.pixels_HWC),
        )


def aligned_traits(image_NHWC: NDArray[np.uint8]) -> Traits:
    """Of a picture's crops [N, S, S, 3], once all have passed the common JPEG."""
    encoded = [_encoded(Image.fromarray(one)) for one in image_NHWC]
    decoded = [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in encoded]
    with Image.open(io.BytesIO(encoded[0])) as image:
        return Traits(
            size_bytes=float(np.mean([len(one) for one in encoded])),
            width_px=image.width,
            height_px=image.height,
            mime=_ALIGNED_MIME,
            quantisation=_quantisation(image),
            blockiness=_mean([blockiness(one) for one in decoded]),
        )


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=ALIGNMENT.quality, subsampling=ALIGNMENT.subsampling)
    return buffer.getvalue()


def _mean(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    first, second = np.mean(pairs, axis=0)
    return float(first), float(second)


def _quantisation(image: Image.Image) -> tuple[float, float]:
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return 0.0, 0.0
    means = [float(np.log(np.mean(table))) for table in image.quantization.values()]
    return means[0], means[1] if len(means) > 1 else means[0]


def blockiness(pixels_HWC: NDArray[np.uint8]) -> tuple[float, float]:
    """How strongly a grid of 8 px shows: of the grid at the corner, and of the strongest."""
    luma_HW = pixels_HWC.astype(np.float64) @ np.array(_LUMA_WEIGHTS)
    by_phase = np.zeros(_GRID_PX)
    strongest = 0.0
    for turned in (luma_HW, luma_HW.T):
        step_W = np.abs(np.diff(turned, axis=1)).mean(axis=0) + _SMALLEST
        if len(step_W) < _GRID_PX:
            continue
        phases = np.log([step_W[phase::_GRID_PX].mean() for phase in range(_GRID_PX)])
        phases -= np.median(phases)
        by_phase += phases / 2
        strongest += phases.max() / 2
    return float(by_phase[_GRID_PX - 1]), float(strongest)
