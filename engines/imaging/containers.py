"""Image containers: what each file is reduced to before its decoder sees it, within a budget of parts."""

import re
import struct
from dataclasses import dataclass
from typing import Final

# Segments, chunks, blocks or strips of one file. A long GIF comment or a PNG written in tiny
# pieces has thousands; each costs a Python decoder about a microsecond.
MAX_PARTS: Final = 65_536


class ImageError(ValueError):
    """An upload that cannot be judged as an image.

    Attributes:
        code: ``empty``, ``too_many_bytes``, ``unsupported_format``, ``too_many_parts``,
            ``too_many_pixels``, ``too_many_scans``, ``too_small``, ``truncated``, ``corrupt`` or
            ``out_of_memory`` (which may be the machine's fault, not the image's).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        # The default would call the constructor with the message only, and unpickling would fail.
        return type(self), (self.code, str(self))


@dataclass(frozen=True)
class Limits:
    """The limits for an upload, checked before it is decoded."""

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_jpeg_scans: int = 64
    min_side_px: int = 16

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_jpeg_scans", "min_side_px"):
            if getattr(self, name) < 1:
                raise ValueError(f"Limits.{name} must be at least 1")


class PartBudget:
    """The number of parts of a container that may still be read."""

    def __init__(self) -> None:
        self._left = MAX_PARTS

    def spend(self) -> None:
        """Count one part; ``ImageError`` if none is left."""
        self._left -= 1
        if self._left < 0:
            raise ImageError("too_many_parts", f"over {MAX_PARTS} segments or chunks in the file")


@dataclass(frozen=True)
class Container:
    """An upload reduced to what its decoder needs.

    Attributes:
        data: a file of the same format with only the parts that make pixels.
        exif: the upload's EXIF block, not parsed, or None.
        orientation: 1..8 if the container itself has one (TIFF), or None.
    """

    data: bytes
    exif: bytes | None = None
    orientation: int | None = None


_SIGNATURES: Final = (
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/webp", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/tiff", re.compile(rb"II\*\0|MM\0\*")),  # not BigTIFF, which is for files over 4 GiB
    # As the major brand, or among the compatible ones, four bytes each.
    ("image/avif", re.compile(rb".{4}ftyp(.{4}){0,32}?avi[fs]", re.DOTALL)),
    ("image/bmp", re.compile(rb"BM")),
)


def sniff_mime(data: bytes) -> str | None:
    """The MIME type by the file's signature, or None for an unsupported format.

    File names and declared types are not trusted.
    """
    return next((mime for mime, pattern in _SIGNATURES if pattern.match(data)), None)


_EXIF: Final = b"Exif\0\0"
_EXIF_ORIENTATION: Final = 0x0112
_EXIF_SHORT: Final = 3
_EXIF_ENTRY_BYTES: Final = 12
UPRIGHT: Final = 1


def orientation_of(exif: bytes) -> int:
    """The orientation, 1..8, in an EXIF block; an unreadable block is upright, as in browsers.

    Only the orientation is read: a general reader copies every value that the directory points at,
    and thousands of entries may point at the same megabytes.
    """
    tiff = exif.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for at in range(start + 2, start + 2 + count * _EXIF_ENTRY_BYTES, _EXIF_ENTRY_BYTES):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at)
            if tag == _EXIF_ORIENTATION:
                return value if kind == _EXIF_SHORT and 1 <= value <= 8 else UPRIGHT  # noqa: PLR2004
    except struct.error:
        pass  # the directory lies outside the block
    return UPRIGHT


_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP1: Final = 0xE1
# A marker with a length, SOI or EOI; not a stuffed FF 00, a fill byte, a restart marker or TEM.
_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
# Frames and Huffman tables, quantisation tables, restart interval, JFIF, Adobe's colour transform.
_JPEG_KEPT: Final = frozenset([*range(0xC0, 0xD0), 0xDB, 0xDD, 0xE0, 0xEE])


def read_jpeg(data: bytes) -> Container:
    """A JPEG with only the segments that make pixels before its first scan, and its EXIF block.

    Bytes between segments are skipped as in libjpeg. Of a multi-picture file only the first picture
    is decoded.
    """
    budget = PartBudget()
    kept, exif, at = [data[:2]], None, 2
    while match := _MARKER.search(data, at):
        budget.spend()
        start, marker = match.start(), data[match.start() + 1]
        if marker == _SOS:
            return Container(b"".join([*kept, data[start:]]), exif)
        if marker in (_SOI, _EOI):
            raise ImageError("corrupt", "image/jpeg: it ends or begins anew before its first scan")
        at = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        if marker in _JPEG_KEPT:
            kept.append(data[start:at])
        elif marker == _APP1 and exif is None and data.startswith(_EXIF, start + 4):
            exif = data[start + 4 : at]
    raise ImageError("truncated", "image/jpeg: it ends before its first scan")


def count_scans(data: bytes, enough: int) -> int:
    """How many scans (SOS markers) a decoder would read; exact if it is over ``enough``.

    The bytes FF DA occur at least as often as there are scans, so counting them clears most files.
    Otherwise the markers are walked as a decoder does, to the end of the first image: what follows
    it (further pictures, a video) does not count.
    """
    occurrences = data.count(b"\xff\xda")
    return occurrences if occurrences <= enough else _walk_scans(data, enough)


def _walk_scans(data: bytes, enough: int) -> int:
    scans, at = 0, 2
    while scans <= enough and (match := _MARKER.search(data, at)):
        marker = data[match.start() + 1]
        if marker == _EOI:
            break
        scans += marker == _SOS
        at = match.end() + int.from_bytes(data[match.end() : match.end() + 2])
    return scans


_PNG_SIGNATURE_BYTES: Final = 8
_PNG_OVERHEAD_BYTES: Final = 12  # length, type, CRC
_PNG_KEPT: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def read_png(data: bytes) -> Container:
    """A PNG with only the chunks that make pixels, and its EXIF block.

    A few kilobytes of compressed text or colour profile can inflate to gigabytes. A harmless text, such
    as a generator's workflow, can be so large that a decoder refuses the image. An animation keeps
    only its default image.
    """
    budget = PartBudget()
    at = _PNG_SIGNATURE_BYTES
    kept, exif = [data[:at]], None
    while at < len(data):
        budget.spend()
        kind = data[at + 4 : at + 8]
        end = at + _PNG_OVERHEAD_BYTES + int.from_bytes(data[at : at + 4])
        if kind in _PNG_KEPT:
            kept.append(data[at:end])
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        at = len(data) if kind == b"IEND" else end
    return Container(b"".join(kept), exif)


_GIF_SCREEN_BYTES: Final = 13
_GIF_CONTROL_LABEL: Final = 0xF9
_GIF_CONTROL_BYTES: Final = 8
_GIF_HAS_PALETTE: Final = 0x80


def read_gif(data: bytes) -> Container:
    """A GIF from its first frame on, without the extensions before it except the control block."""
    if len(data) < _GIF_SCREEN_BYTES:
        raise ImageError("truncated", "image/gif: it ends within its header")
    budget = PartBudget()
    flags = data[10]
    at = head = _GIF_SCREEN_BYTES + (3 << (flags & 7) + 1 if flags & _GIF_HAS_PALETTE else 0)
    control = b""
    while at < len(data):
        budget.spend()
        kind = data[at : at + 1]
        if kind == b",":
            return Container(data[:head] + control + data[at:])
        if kind == b";":
            break
        if kind != b"!":
            raise ImageError("corrupt", "image/gif: no block where one must begin")
        end = _skip_sub_blocks(data, at + 2, budget)
        if data[at + 1 : at + 2] == bytes([_GIF_CONTROL_LABEL]) and end - at == _GIF_CONTROL_BYTES:
            control = data[at:end]
        at = end
    raise ImageError("truncated", "image/gif: it has no image in it")


def _skip_sub_blocks(data: bytes, at: int, budget: PartBudget) -> int:
    while at < len(data) and data[at]:
        budget.spend()
        at += 1 + data[at]
    return at + 1


_WEBP_NEEDED_BYTES: Final = 10


def canvas_size_px(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a WebP's canvas, which a decoder allocates at once; None if unreadable."""
    kind, body = data[12:16], data[20:30]
    if len(body) < _WEBP_NEEDED_BYTES:
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


# The entry of an item of the type Exif: version 2 (a 16-bit item id) or 3 (a 32-bit one).
_AVIF_EXIF_ENTRY: Final = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)


def read_avif(data: bytes) -> Container:
    """An AVIF with its EXIF item renamed to a type that no decoder reads.

    Pillow parses that block when it opens the file. In AVIF the orientation is a property of the
    image, so the block is not needed.
    """
    return Container(_AVIF_EXIF_ENTRY.sub(rb"\1skip", data))
