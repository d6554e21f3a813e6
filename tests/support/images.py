"""Encoded images of every format and kind that an upload may be, built with numpy and Pillow."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.bundles import gradient_HWC


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:  # noqa: ANN401  Pillow's
    """The image as a file; ``options`` are those of Pillow's ``save``."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def picture(height_px: int = 40, width_px: int = 56) -> Image.Image:
    """An RGB picture in which every place has its own colour."""
    return Image.fromarray(gradient_HWC(height_px, width_px))


def noise_HWC(height_px: int, width_px: int, seed: int = 0) -> NDArray[np.uint8]:  # noqa: N802  shape
    """Uniform noise: the hardest picture to compress."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def with_orientation(orientation: int) -> Image.Exif:
    """An EXIF block that says how the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file, with its length and its CRC."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def before_image_data(png: bytes, chunks: bytes) -> bytes:
    """The PNG file with more chunks before its image data."""
    at = png.index(b"IDAT") - 4
    return png[:at] + chunks + png[at:]


def every_kind() -> dict[str, bytes]:
    """A small sound file of every kind that is taken, by name."""
    rgb = picture()
    rgba = rgb.copy()
    rgba.putalpha(rgb.getchannel("R"))
    palette = rgb.quantize(16)
    return {
        "jpeg": encoded(rgb, "JPEG"),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg grey": encoded(rgb.convert("L"), "JPEG"),
        "jpeg cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "jpeg exif": encoded(rgb, "JPEG", exif=with_orientation(6)),
        "mpo": encoded(rgb, "MPO", save_all=True, append_images=[rgb]),
        "png": encoded(rgb, "PNG", exif=with_orientation(3)),
        "png alpha": encoded(rgba, "PNG"),
        "png palette": encoded(palette, "PNG", transparency=3),
        "png 16-bit": encoded(Image.fromarray(np.full((40, 56), 40_000, np.uint16)), "PNG"),
        "apng": encoded(rgb, "PNG", save_all=True, append_images=[rgb.rotate(180)]),
        "webp": encoded(rgb, "WEBP", exif=with_orientation(8)),
        "webp lossless": encoded(rgb, "WEBP", lossless=True),
        "webp alpha": encoded(rgba, "WEBP"),
        "gif": encoded(palette, "GIF", comment=b"made for a test"),
        "gif animated": encoded(palette, "GIF", save_all=True, append_images=[rgb.rotate(180)]),
        "bmp": encoded(rgb, "BMP"),
        "bmp palette": encoded(palette, "BMP"),
        "tiff": encoded(rgb, "TIFF"),
        "tiff lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff deflate alpha": encoded(rgba, "TIFF", compression="tiff_adobe_deflate"),
        "tiff float": encoded(Image.fromarray(np.full((40, 56), 0.5, np.float32)), "TIFF"),
        "avif": encoded(rgb, "AVIF", exif=with_orientation(5)),
        "avif alpha": encoded(rgba, "AVIF"),
    }
