"""WebP: the size of the canvas, which a decoder allocates as soon as it opens the file.

In: bytes. Out: a size. Errors: none.
"""

import struct
from typing import Final

_NEEDED_BYTES: Final = 10


def canvas_size_px(data: bytes) -> tuple[int, int] | None:
    """(width, height) of the canvas, or None where the first chunk is not one that begins a WebP."""
    kind, body = data[12:16], data[20:30]
    if len(body) < _NEEDED_BYTES:
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width_px, height_px = struct.unpack("<HH", body[6:10])
        return width_px & 0x3FFF, height_px & 0x3FFF
    return None
