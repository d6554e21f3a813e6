"""Decode: an event's bytes in, crops ready for a batch out.

Errors: :class:`Poison` (stage ``decode``) with the code of :class:`engines.preprocess.ImageError`.
"""

import hashlib
from collections.abc import Callable

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import (
    DecodedImage,
    ImageError,
    Limits,
    Prepared,
    crop_prepared,
    decode_image,
)
from worker.errors import Poison, Retryable
from worker.event import ImageEvent
from worker.settings import DecodeSettings

OUT_OF_MEMORY = "out_of_memory"
MEMORY_ATTEMPTS = 3
MEMORY_PAUSE_S = 1.0


def _give_up(_seconds: float) -> bool:
    return True


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
    """Crops of the image, as the bundle wants them; :class:`Poison` as :func:`decode_pixels` says."""
    return crop_prepared(decode_pixels(data, limits), spec)


def decode_pixels(
    data: bytes, limits: Limits, pause: Callable[[float], bool] = _give_up
) -> DecodedImage:
    """The whole image, from which each engine takes its own crops.

    Args:
        data: Encoded bytes.
        limits: What is refused before it is decoded.
        pause: Called with seconds where memory is short, which may be the machine's fault and pass;
            returns True to give up. By default the first failure is the last.

    Raises:
        Poison: The bytes are no image, a broken one, one past the caps, or one that memory does not hold.
        Retryable: The worker is stopping while memory is short: another one will decode it.
    """
    for attempt in range(1, MEMORY_ATTEMPTS + 1):
        try:
            return decode_image(data, limits)
        except ImageError as error:
            last = attempt == MEMORY_ATTEMPTS or pause is _give_up
            if error.code != OUT_OF_MEMORY or last:
                raise Poison("decode", error.code, str(error), attempt) from error
            if pause(MEMORY_PAUSE_S * attempt):
                raise Retryable(str(error)) from error
    raise AssertionError("unreachable: the loop returns or raises")
