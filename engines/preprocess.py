"""From the bytes of an upload to the crops a model sees: the one implementation.

In: encoded bytes. Out: uint8 RGB crops [n, S, S, 3] of native pixels (cropped, never squashed).
Errors: ``ImageError``, with a code for machines and a message for people.

Limits are checked before any costly step: bytes, format, pixels and progressive scans come
from the headers. All functions are pure and may be called from many threads at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.bundle.manifest import PreprocessSpec
from engines.imaging.containers import ImageError, Limits
from engines.imaging.decode import decode_pixels

__all__ = [
    "PREPROCESS_VERSION",
    "DecodedImage",
    "ImageError",
    "Limits",
    "Prepared",
    "crop_image",
    "crop_origins_px",
    "crop_prepared",
    "decode_image",
    "prepare",
]

# Raise it with any change that alters a single pixel of a crop.
PREPROCESS_VERSION = "1"


@dataclass(frozen=True)
class DecodedImage:
    """An image as a person sees it: uint8 RGB [H, W, 3], upright, on white where transparent."""

    pixels_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    mime: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Prepared:
    """The crops of an image, uint8 RGB [n, S, S, 3], and what the image was."""

    image_NHWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    mime: str
    width_px: int
    height_px: int


def prepare(data: bytes, spec: PreprocessSpec, limits: Limits) -> Prepared:
    """Decode and crop; raises ``ImageError``."""
    return crop_prepared(decode_image(data, limits), spec)


def crop_prepared(image: DecodedImage, spec: PreprocessSpec) -> Prepared:
    """The crops of an image that is decoded already: two models may want different ones of it."""
    return Prepared(
        image_NHWC=crop_image(image.pixels_HWC, spec),
        mime=image.mime,
        width_px=image.width_px,
        height_px=image.height_px,
    )


def decode_image(data: bytes, limits: Limits) -> DecodedImage:
    """Decode an upload; raises ``ImageError``. The size is the one after EXIF orientation."""
    mime, pixels_HWC = decode_pixels(data, limits)
    height_px, width_px, _ = pixels_HWC.shape
    return DecodedImage(pixels_HWC, mime, width_px=width_px, height_px=height_px)


def crop_image(pixels_HWC: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """The crops of an image, uint8 [n, S, S, 3] with 1 <= n <= ``spec.max_crops``.

    What is smaller than a crop is padded by reflection, evenly on both sides.
    """
    if pixels_HWC.ndim != 3 or pixels_HWC.shape[2] != 3 or 0 in pixels_HWC.shape:  # noqa: PLR2004  RGB
        raise ValueError(f"expected pixels [H, W, 3], got {pixels_HWC.shape}")
    side_px = spec.crop_px
    origins = crop_origins_px(pixels_HWC.shape[0], pixels_HWC.shape[1], spec)
    crops = [pixels_HWC[y : y + side_px, x : x + side_px] for y, x in origins]
    return np.stack([_reflect_padded(crop_HWC, side_px) for crop_HWC in crops])


def _reflect_padded(crop_HWC: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    # Padding follows cropping: a strip of 16 x 3,000,000 px would else grow fourteen times.
    lacking = [side_px - length for length in crop_HWC.shape[:2]]
    if lacking == [0, 0]:
        return crop_HWC
    around = [(lack // 2, lack - lack // 2) for lack in lacking]
    return np.pad(crop_HWC, [*around, (0, 0)], mode="reflect")


def crop_origins_px(
    height_px: int, width_px: int, spec: PreprocessSpec
) -> tuple[tuple[int, int], ...]:
    """Where the crops begin, (y, x) by row; the centre alone for the policy "center".

    "five_crop" adds the centre, last, to the corners (as torchvision's ``FiveCrop``, for pictures that
    the corners do not overlap in); others get the grid of at most five that fits.
    """
    height_crops, width_crops = height_px / spec.crop_px, width_px / spec.crop_px
    slack_px = (height_px - spec.crop_px, width_px - spec.crop_px)
    match spec.crop_policy:
        case "center":
            return _lattice_px(slack_px, 1, 1)
        case "five_crop" if min(height_crops, width_crops) >= 2:  # noqa: PLR2004  side by side
            return _lattice_px(slack_px, 2, 2) + _lattice_px(slack_px, 1, 1)
        case _:
            return _lattice_px(slack_px, *_grid(height_crops, width_crops, spec.max_crops))


def _lattice_px(slack_px: tuple[int, int], rows: int, columns: int) -> tuple[tuple[int, int], ...]:
    """Origins (y, x) of rows times columns crops, spread over a slack of (height, width)."""
    ys_px, xs_px = _spread_px(slack_px[0], rows), _spread_px(slack_px[1], columns)
    return tuple((y, x) for y in ys_px for x in xs_px)


def _grid(height_crops: float, width_crops: float, max_crops: int) -> tuple[int, int]:
    """(rows, columns): the most that fit side by side; of those, the most evenly spread."""
    most_rows = min(max_crops, max(1, int(height_crops)))
    candidates = [
        (rows, min(max_crops // rows, max(1, int(width_crops)))) for rows in range(1, most_rows + 1)
    ]

    def preference(candidate: tuple[int, int]) -> tuple[float, float, int]:
        rows, columns = candidate
        unevenness = abs(height_crops / rows - width_crops / columns)
        return -rows * columns, unevenness, rows

    return min(candidates, key=preference)


def _spread_px(slack_px: int, count: int) -> list[int]:
    """``count`` offsets over 0..slack, both ends included; the middle where there is one."""
    slack_px = max(0, slack_px)
    if count == 1:
        return [slack_px // 2]
    return [slack_px * index // (count - 1) for index in range(count)]
