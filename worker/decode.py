"""Decode: an event's bytes in, crops ready for a batch out.

Errors: :class:`Poison` (stage ``decode``) with the code of :class:`engines.preprocess.ImageError`.
"""

import hashlib

from engines.manifest import PreprocessSpec
from engines.preprocess import ImageError, Limits, Prepared, prepare
from worker.errors import Poison
from worker.event import ImageEvent
from worker.settings import DecodeSettings


def limits_of(settings: DecodeSettings) -> Limits:
    """The caps that are checked before any pixel is decoded."""
    return Limits(
        max_bytes=settings.max_bytes,
        max_pixels=settings.max_pixels,
        max_jpeg_scans=settings.max_jpeg_scans,
        min_side_px=settings.min_side_px,
    )


def checked_sha256(event: ImageEvent, data: bytes) -> str:
    """The SHA-256 of the image's bytes, hex.

    Raises:
        Poison: The event promised another one: these are not the bytes that its sender meant.
    """
    found = hashlib.sha256(data).hexdigest()
    if event.sha256 is not None and event.sha256.lower() != found:
        raise Poison(
            "fetch",
            "sha256_mismatch",
            f"the image's SHA-256 is {found}, the event says {event.sha256}: send the event again",
        )
    return found


def decode(data: bytes, spec: PreprocessSpec, limits: Limits) -> Prepared:
    """Crops of the image, as the bundle wants them.

    Raises:
        Poison: The bytes are no image, a broken one, or one past the caps.
    """
    try:
        return prepare(data, spec, limits)
    except ImageError as error:
        raise Poison("decode", error.code, str(error)) from error
