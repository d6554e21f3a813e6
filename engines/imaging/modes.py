"""From any of Pillow's pixel modes to 8-bit RGB.

In: a loaded image. Out: uint8 RGB [H, W, 3], with a white background behind transparency.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_WHITE = (255, 255, 255)
_BAND_PIXELS = 1_000_000
_MAX_UINT8, _MAX_UINT16 = 255, 65535


def to_rgb_HWC(image: Image.Image) -> NDArray[np.uint8]:  # noqa: N802  the suffix is the shape
    """The image's pixels as uint8 RGB [H, W, 3].

    Conversion works in bands of rows: at once, the copies made by conversion and compositing would
    take six times the memory of the result.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey_to_rgb(image)
    width_px, height_px = image.size
    rgb_HWC = np.empty((height_px, width_px, 3), np.uint8)
    rows = max(1, _BAND_PIXELS // width_px)
    for top in range(0, height_px, rows):
        bottom = min(top + rows, height_px)
        rgb_HWC[top:bottom] = _band_to_rgb(image.crop((0, top, width_px, bottom)))
    return rgb_HWC


def _band_to_rgb(band: Image.Image) -> NDArray[np.uint8]:
    if band.mode == "La":
        band = band.convert("LA")  # the only conversion of premultiplied grey
    if not band.has_transparency_data:
        return np.asarray(band if band.mode == "RGB" else band.convert("RGB"))
    rgba = band.convert("RGBA")
    canvas = Image.new("RGB", rgba.size, _WHITE)
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return np.asarray(canvas)


def _deep_grey_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Scale grey of more than 8 bits, which ``convert`` would clip."""
    deep_HW = np.asarray(image)
    grey_HW = _high_byte(deep_HW) if deep_HW.dtype.itemsize == 2 else _scaled(deep_HW)  # noqa: PLR2004  bytes
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey_HW = np.where(deep_HW == key, np.uint8(_MAX_UINT8), grey_HW)
    return np.repeat(grey_HW[:, :, None], 3, axis=2)


def _high_byte(deep_HW: NDArray[np.uint16]) -> NDArray[np.uint8]:
    # As Pillow does for 16-bit colour, so that grey stored as colour gives the same pixels.
    return (deep_HW >> 8).astype(np.uint8)


def _scaled(deep_HW: NDArray[np.int32] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """32-bit grey, by the narrowest usual range that contains it, as files do not state theirs.

    Floats within 0..1 are fractions; values within 0..255 are kept; values within 0..65535 lose the
    low byte; others are stretched from their lowest to their highest.
    """
    if not np.isfinite(deep_HW).all():
        raise ValueError("a pixel is not a finite number")
    lowest, highest = float(deep_HW.min()), float(deep_HW.max())
    if lowest < 0 or highest > _MAX_UINT16:
        factor, offset = _MAX_UINT8 / (highest - lowest or 1.0), lowest
    elif highest > _MAX_UINT8:
        factor, offset = 1 / 256, 0.0
    else:
        is_fraction = highest <= 1 and deep_HW.dtype.kind == "f"
        factor, offset = (float(_MAX_UINT8) if is_fraction else 1.0), 0.0
    grey_HW = np.empty(deep_HW.shape, np.uint8)
    for row, deep_W in enumerate(
        deep_HW
    ):  # row by row: double precision takes eight times the memory
        grey_HW[row] = (deep_W.astype(np.float64) - offset) * factor
    return grey_HW
