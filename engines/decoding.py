"""From encoded bytes to upright RGB pixels.

In: bytes. Out: a MIME type and uint8 RGB [H, W, 3]. Errors: ``ImageError``.

Pillow's format classes are used directly, not ``Image.open``: the format was sniffed already,
and neither Pillow's global pixel limit (which other code may change at any time, from any
thread) nor its two warnings take part. ``LOAD_TRUNCATED_IMAGES`` stays off: half an image is
an error. Colour profiles are not applied: the model learns from pixels as they are coded.
"""

import io
import struct
import zlib
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from engines.headers import count_jpeg_scans, sniff_mime, webp_size_px, without_png_text
from engines.imaging import ImageError, Limits
from engines.modes import to_rgb_HWC

_FORMATS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "image/avif": AvifImagePlugin.AvifImageFile,
    "image/bmp": BmpImagePlugin.BmpImageFile,
    "image/gif": GifImagePlugin.GifImageFile,
    "image/jpeg": JpegImagePlugin.JpegImageFile,  # of a multi-picture file, the first picture
    "image/png": PngImagePlugin.PngImageFile,
    "image/tiff": TiffImagePlugin.TiffImageFile,
    "image/webp": WebPImagePlugin.WebPImageFile,
}

# What Pillow raises on bytes that are not a sound image. Its decoders are parsers in Python
# over attacker-chosen numbers, so beside its own errors (SyntaxError, OSError, ValueError,
# EOFError) come those of indexing, unpacking, inflating and arithmetic. Anything else, such
# as an ImportError or a KeyboardInterrupt, is not about the image and passes through.
_DECODER_ERRORS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,  # where warnings are made errors (python -W error)
    Image.DecompressionBombError,
    struct.error,
    zlib.error,
)


def decode_pixels(data: bytes, limits: Limits) -> tuple[str, NDArray[np.uint8]]:
    """(MIME type, uint8 RGB [H, W, 3]) of an upload; raises ``ImageError``."""
    mime = _check_container(data, limits)
    try:
        # The file object is closed with the image: BytesIO holds no other resource.
        with _FORMATS[mime](io.BytesIO(_as_read(data, mime))) as image:
            _check_size(image.size, limits)
            pixels_HWC = _pixels(data, image)
            return mime, np.ascontiguousarray(_upright(pixels_HWC, _orientation(image)))
    except ImageError:
        raise  # a ValueError itself: not to be classified again below
    except MemoryError as error:
        raise ImageError("out_of_memory", f"no memory to decode this {mime}") from error
    except _DECODER_ERRORS as error:
        raise _classified(mime, error) from error


def _check_container(data: bytes, limits: Limits) -> str:
    if not data:
        raise ImageError("empty", "the upload has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"{len(data)} bytes, over {limits.max_bytes}")
    mime = sniff_mime(data)
    if mime is None:
        known = ", ".join(sorted(one.removeprefix("image/") for one in _FORMATS))
        raise ImageError("unsupported_format", f"not an image of a known format ({known})")
    if mime == "image/jpeg":
        scans = count_jpeg_scans(data, limits.max_jpeg_scans)
        if scans > limits.max_jpeg_scans:
            raise ImageError("too_many_scans", f"{scans} scans, over {limits.max_jpeg_scans}")
    if mime == "image/webp" and (size_px := webp_size_px(data)):
        _check_size(size_px, limits)
    return mime


def _check_size(size_px: tuple[int, int], limits: Limits) -> None:
    width_px, height_px = size_px
    if width_px * height_px > limits.max_pixels:
        raise ImageError(
            "too_many_pixels", f"{width_px} x {height_px} px, over {limits.max_pixels} pixels"
        )
    if min(size_px) < limits.min_side_px:
        raise ImageError(
            "too_small", f"{width_px} x {height_px} px, a side under {limits.min_side_px} px"
        )


def _as_read(data: bytes, mime: str) -> bytes:
    return without_png_text(data) if mime == "image/png" else data


def _pixels(data: bytes, image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in ("L", "RGB"):
        try:
            fast_HWC: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
        except ValueError:
            pass  # a warning or an error of libjpeg: Pillow decides which, below
        else:
            if fast_HWC.shape[:2] == image.size[::-1]:
                return fast_HWC
    image.load()
    return to_rgb_HWC(image)


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1..8; an unreadable one is upright, as in browsers."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DECODER_ERRORS:
        return 1


def _upright(pixels_HWC: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation in (5, 6, 7, 8):
        pixels_HWC = pixels_HWC.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    if orientation in (2, 3, 6, 7):
        pixels_HWC = pixels_HWC[:, ::-1]
    return pixels_HWC


def _classified(mime: str, error: BaseException) -> ImageError:
    text = str(error) or type(error).__name__
    code = "truncated" if isinstance(error, EOFError) or "truncated" in text else "corrupt"
    return ImageError(code, f"{mime} cannot be decoded: {text}")
