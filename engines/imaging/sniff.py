"""The format of an upload, by its signature alone: neither its name nor its header is believed."""

import re
from typing import Final

_SIGNATURES: Final = (
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/webp", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/tiff", re.compile(rb"II\*\0|MM\0\*")),  # classic: BigTIFF is for files over 4 GiB
    # The brand is the major one, or one of the compatible ones, four bytes each.
    ("image/avif", re.compile(rb".{4}ftyp(.{4}){0,32}?avi[fs]", re.DOTALL)),
    ("image/bmp", re.compile(rb"BM")),
)


def sniff_mime(data: bytes) -> str | None:
    """The MIME type, or None if it is not one of the formats taken."""
    return next((mime for mime, pattern in _SIGNATURES if pattern.match(data)), None)
