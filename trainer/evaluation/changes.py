"""What happens to pictures on their way through the world: each change by its name.

In: native pixels [H, W, 3] uint8. Out: the picture after the change, uint8, of another size where
the change resizes. No errors: the configuration has checked the names.

A change is applied to the *whole* picture before any crop is cut, as it would be by a site or a
phone, and alike to real and generated ones:

- ``jpegQ``, ``webpQ``: saved at quality Q (4:2:0, as most sites do) and read again.
- ``blurS``: a Gaussian of S px.
- ``resizeF``: both sides times F (bicubic). ``longerP``: the longer side becomes P px (Lanczos).
- ``marginM``: a share M is cut off every side: the 8-px grid of an earlier JPEG is then shifted.
- ``a+b``: a, then b.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.config.evaluation import OPERATION
from trainer.data.augment import Blur, Jpeg, Webp
from trainer.evaluation.families import Change

_SUBSAMPLING: Final = "4:2:0"


def change(name: str) -> Change:
    """The change of a name such as ``jpeg75+resize0.5``."""
    steps = [_step(one) for one in name.split("+")]

    def apply(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image = Image.fromarray(pixels_HWC)
        for step, value in steps:
            image = step(image, value)
        return np.asarray(image)

    return apply


_Step = Callable[[Image.Image, float], Image.Image]


def _step(name: str) -> tuple[_Step, float]:
    match = OPERATION.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no change of a picture")
    return _STEPS[match["name"]], float(match["value"])


def _jpeg(image: Image.Image, quality: float) -> Image.Image:
    return Jpeg(round(quality), _SUBSAMPLING).apply(image)


def _webp(image: Image.Image, quality: float) -> Image.Image:
    return Webp(round(quality)).apply(image)


def _blur(image: Image.Image, sigma_px: float) -> Image.Image:
    return Blur(sigma_px).apply(image)


def _resize(image: Image.Image, factor: float) -> Image.Image:
    return _sized(image, factor, Image.Resampling.BICUBIC)


def _longer(image: Image.Image, side_px: float) -> Image.Image:
    return _sized(image, side_px / max(image.size), Image.Resampling.LANCZOS)


def _sized(image: Image.Image, factor: float, resampling: Image.Resampling) -> Image.Image:
    size_px = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.copy() if size_px == image.size else image.resize(size_px, resampling)


def _margin(image: Image.Image, share: float) -> Image.Image:
    # A cut of whole blocks would leave the grid where it was.
    left, top = (_off_grid(round(length * share)) for length in image.size)
    if image.width <= 2 * left or image.height <= 2 * top:
        return image
    return image.crop((left, top, image.width - left, image.height - top))


def _off_grid(cut_px: int) -> int:
    return cut_px + 3 if cut_px % 8 == 0 else cut_px


_STEPS: Final[Mapping[str, _Step]] = MappingProxyType(
    {
        "jpeg": _jpeg,
        "webp": _webp,
        "blur": _blur,
        "resize": _resize,
        "longer": _longer,
        "margin": _margin,
    }
)
