"""JPEG: the segments that make pixels, and the number of scans.

In: bytes. Out: a ``Container``. Errors: ``ImageError``.
"""

import re
from typing import Final

from engines.imaging.container import Container
from engines.imaging.limits import ImageError, PartBudget

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP1: Final = 0xE1
_EXIF: Final = b"Exif\0\0"
# A marker with a length, or SOI or EOI. Not: a stuffed FF 00, a fill byte, a restart marker, TEM.
_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
# Frames and Huffman tables, quantisation tables, restart interval, JFIF, Adobe's colour transform.
_KEPT: Final = frozenset([*range(0xC0, 0xD0), 0xDB, 0xDD, 0xE0, 0xEE])


def read_jpeg(data: bytes) -> Container:
    """The file with the segments before its first scan filtered; the first EXIF block beside it.

    Bytes between segments are skipped as libjpeg skips them. Of a multi-picture file, the first
    picture alone is decoded.
    """
    budget = PartBudget()
    kept, exif, at = [data[:2]], None, 2
    while found := _MARKER.search(data, at):
        budget.spend()
        start, marker = found.start(), data[found.start() + 1]
        if marker == _SOS:
            return Container(b"".join([*kept, data[start:]]), exif)
        if marker in (_SOI, _EOI):
            raise ImageError("corrupt", "image/jpeg: it ends or begins anew before its first scan")
        at = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        if marker in _KEPT:
            kept.append(data[start:at])
        elif marker == _APP1 and exif is None and data.startswith(_EXIF, start + 4):
            exif = data[start + 4 : at]
    raise ImageError("truncated", "image/jpeg: it ends before its first scan")


def count_scans(data: bytes, enough: int) -> int:
    """How many scans (SOS markers) a decoder would meet; exact where it is over ``enough``.

    The bytes FF DA occur in a file at least as often as there are scans, so most files are
    cleared by counting those. Where they are many, the markers are walked as a decoder walks
    them, up to the end of the first image: what follows it (further pictures, a video) then
    does not count.
    """
    occurrences = data.count(b"\xff\xda")
    return occurrences if occurrences <= enough else _walk_scans(data, enough)


def _walk_scans(data: bytes, enough: int) -> int:
    scans, at = 0, 2
    while scans <= enough and (found := _MARKER.search(data, at)):
        marker = data[found.start() + 1]
        if marker == _EOI:
            break
        scans += marker == _SOS
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return scans
