"""From encoded bytes to upright RGB pixels.

In: bytes. Out: a MIME type and uint8 RGB [H, W, 3]. Errors: ``ImageError``.

Pillow's format classes are used directly, not ``Image.open``: the format is known, and the pixel
limit does not depend on Pillow's global one, which other code may change. (If the limit is above
Pillow's, some of its decoders still apply their own.) ``LOAD_TRUNCATED_IMAGES`` stays off: half an
image is an error. Colour profiles are not applied, because the model learns from pixels as coded.

Grey and colour JPEGs are decoded by simplejpeg, which is three times as fast as Pillow and gives the
same pixels: both are libjpeg-turbo, with the accurate DCT and smooth upsampling, and a test compares
them. Pillow decides about every file that simplejpeg does not accept without a warning.
"""

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from engines.imaging.containers import (
    UPRIGHT,
    Container,
    ImageError,
    Limits,
    canvas_size_px,
    count_scans,
    orientation_of,
    read_avif,
    read_gif,
    read_jpeg,
    read_png,
    sniff_mime,
)
from engines.imaging.modes import to_rgb_HWC
from engines.imaging.tiff import read_tiff

_Reader = Callable[[bytes], Container]
_FORMATS: Final[Mapping[str, tuple[_Reader, type[ImageFile.ImageFile]]]] = MappingProxyType(
    {
        "image/avif": (read_avif, AvifImagePlugin.AvifImageFile),
        "image/bmp": (Container, BmpImagePlugin.BmpImageFile),
        "image/gif": (read_gif, GifImagePlugin.GifImageFile),
        "image/jpeg": (read_jpeg, JpegImagePlugin.JpegImageFile),
        "image/png": (read_png, PngImagePlugin.PngImageFile),
        "image/tiff": (read_tiff, TiffImagePlugin.TiffImageFile),
        "image/webp": (Container, WebPImagePlugin.WebPImageFile),
    }
)

# A usual progressive JPEG has ten scans, and each costs a pass over all pixels. A large image is
# therefore allowed fewer scans: a decoder never does more work than this many passes over an image of
# max_pixels.
_MAX_FULL_PASSES: Final = 16

# What Pillow raises for bytes that are not a valid image. Its decoders are Python parsers over numbers
# that an attacker chooses, so errors of indexing, unpacking, inflating and arithmetic occur beside its
# own (SyntaxError, OSError, ValueError, EOFError). Other errors, such as ImportError, pass through.
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
    Warning,  # if warnings are errors (python -W error)
    struct.error,
    zlib.error,
)


def decode_pixels(data: bytes, limits: Limits) -> tuple[str, NDArray[np.uint8]]:
    """(MIME type, uint8 RGB [H, W, 3]) of an upload; raises ``ImageError``."""
    mime = _check_upload(data, limits)
    read, image_class = _FORMATS[mime]
    try:
        container = read(data)
        with image_class(io.BytesIO(container.data)) as image:
            _check_size(image.size, limits)
            _check_coding(image, container, limits)
            pixels_HWC = _pixels(container, image)
            return mime, np.ascontiguousarray(_upright(pixels_HWC, _orientation(container, image)))
    except ImageError:
        raise  # a ValueError itself, which would be classified again below
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", f"{mime}: {error}") from error
    except MemoryError as error:
        raise ImageError("out_of_memory", f"no memory to decode this {mime}") from error
    except _DECODER_ERRORS as error:
        raise _classified(mime, error) from error


def _check_upload(data: bytes, limits: Limits) -> str:
    if not data:
        raise ImageError("empty", "the upload has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"{len(data)} bytes, over {limits.max_bytes}")
    mime = sniff_mime(data)
    if mime is None:
        known = ", ".join(sorted(mime.removeprefix("image/") for mime in _FORMATS))
        raise ImageError("unsupported_format", f"not an image of a known format ({known})")
    if mime == "image/webp" and (size_px := canvas_size_px(data)):
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


def _check_coding(image: ImageFile.ImageFile, container: Container, limits: Limits) -> None:
    """Refuse codings whose cost the number of pixels does not bound."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        passes = _MAX_FULL_PASSES * limits.max_pixels // (image.width * image.height)
        allowed = min(limits.max_jpeg_scans, passes)
        if count_scans(container.data, allowed) > allowed:
            raise ImageError(
                "too_many_scans", f"over {allowed} scans of {image.width} x {image.height} px"
            )
    if any(tile.codec_name == "bmp_rle" for tile in image.tile):
        # Pillow decodes it in Python, run by run, while all other threads wait.
        raise ImageError("unsupported_format", "a run-length-coded BMP: save it as PNG")


def _pixels(container: Container, image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in ("L", "RGB"):
        try:
            fast_HWC: NDArray[np.uint8] = simplejpeg.decode_jpeg(container.data, "RGB")
        except ValueError:
            pass  # a warning or an error of libjpeg: Pillow decides below
        else:
            if fast_HWC.shape[:2] == image.size[::-1]:
                return fast_HWC
    image.load()
    return to_rgb_HWC(image)


def _orientation(container: Container, image: ImageFile.ImageFile) -> int:
    if container.orientation is not None:
        return container.orientation
    exif = container.exif or image.info.get("exif")
    return orientation_of(exif) if isinstance(exif, bytes) else UPRIGHT


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
    ended_early = isinstance(error, EOFError) or "truncated" in text.lower()
    return ImageError("truncated" if ended_early else "corrupt", f"{mime}: {text}")
