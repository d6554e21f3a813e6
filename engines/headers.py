"""What can be learnt of an encoded image from its first bytes and markers, before decoding.

In: bytes. Out: a MIME type, a size, a number of scans, or the bytes without their text chunks.
Nothing here decompresses, so nothing here can be made to cost more than one walk of the bytes.
"""

import re
import struct
from typing import Final

_SIGNATURES: Final = (
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/webp", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/tiff", re.compile(rb"II[*+]\0|MM\0[*+]")),
    # The brand is the major one, or one of the compatible ones, four bytes each.
    ("image/avif", re.compile(rb".{4}ftyp(.{4}){0,32}?avi[fs]", re.DOTALL)),
    ("image/bmp", re.compile(rb"BM")),
)
_PNG_SIGNATURE_BYTES = 8
_SOS, _EOI = 0xDA, 0xD9
# A marker: not a stuffed FF 00, not a fill byte, not a restart marker, not TEM.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
# Chunks in which no pixel lies and which expand when read (the profile is not applied).
_PNG_EXPANDING = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_PNG_CHUNK_OVERHEAD_BYTES = 12


def sniff_mime(data: bytes) -> str | None:
    """The MIME type by the file's signature, or None if it is not one of the formats taken."""
    return next((mime for mime, pattern in _SIGNATURES if pattern.match(data)), None)


def webp_size_px(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a WebP's canvas, or None where its first chunk is not a WebP's.

    Needed because the decoder allocates the canvas when it is opened.
    """
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:  # noqa: PLR2004  the bytes that the three layouts below need
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return None


def count_jpeg_scans(data: bytes, enough: int) -> int:
    """How many scans (SOS markers) a decoder would meet; exact where it is over ``enough``.

    The bytes FF DA occur in a file at least as often as there are scans, so most files are
    cleared by counting those. Where they are many, the markers are walked as a decoder walks
    them, up to the end of the first image: thumbnails, appended videos and colour profiles
    then do not count.
    """
    occurrences = data.count(b"\xff\xda")
    return occurrences if occurrences <= enough else _walk_jpeg_scans(data)


def _walk_jpeg_scans(data: bytes) -> int:
    scans, at = 0, 2
    while found := _MARKER.search(data, at):
        marker = data[found.start() + 1]
        if marker == _EOI:
            break
        scans += marker == _SOS
        length = int.from_bytes(data[found.end() : found.end() + 2])
        at = found.end() + max(length, 2)
    return scans


def without_png_text(data: bytes) -> bytes:
    """The PNG without its text and colour-profile chunks.

    A few kilobytes of such a chunk may inflate to gigabytes, and an honest one (the workflow
    that a generator stores) may be large enough for a decoder to refuse a sound image.
    """
    at = _PNG_SIGNATURE_BYTES
    kept = [data[:at]]
    while at + 8 <= len(data):
        end = at + _PNG_CHUNK_OVERHEAD_BYTES + int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] not in _PNG_EXPANDING:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)
