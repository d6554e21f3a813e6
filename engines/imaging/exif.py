"""The orientation in an EXIF block, read without reading the rest of it.

In: bytes. Out: 1..8. Errors: none: an unreadable block is upright, as it is in browsers.

A general reader copies every value that the block's directory points at, and thousands of entries
may point at the same megabytes.
"""

import struct
from typing import Final

_PREFIX: Final = b"Exif\0\0"
_ORIENTATION: Final = 0x0112
_SHORT: Final = 3
_ENTRY_BYTES: Final = 12
UPRIGHT: Final = 1


def orientation_of(exif: bytes) -> int:
    """The orientation, 1..8, of an EXIF block with or without its prefix."""
    tiff = exif.removeprefix(_PREFIX)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for at in range(start + 2, start + 2 + count * _ENTRY_BYTES, _ENTRY_BYTES):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at)
            if tag == _ORIENTATION:
                return value if kind == _SHORT and 1 <= value <= 8 else UPRIGHT  # noqa: PLR2004
    except struct.error:
        pass  # the directory lies outside the block
    return UPRIGHT
