"""TIFF: the first page, with a directory that has only the tags that make pixels.

In: bytes. Out: a ``Container``. Errors: ``ImageError``.

The strips stay where they are: a new directory is appended, and the header points to it. The number
of strips must match the page's size, and they must not overlap. Otherwise a small file could make a
decoder read the same megabytes thousands of times. JPEG within TIFF is refused, because counting its
scans would mean parsing every strip.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from engines.imaging.containers import MAX_PARTS, Container, ImageError

_WIDTH, _HEIGHT, _COMPRESSION, _ORIENTATION = 256, 257, 259, 274
_STRIP_OFFSETS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES = 273, 277, 278, 279
_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 284, 322, 323, 324, 325
# The others: bits, photometric, fill order, fax options, predictor, palette, ink set, extra
# samples, sample format, YCbCr coefficients, subsampling, positioning, reference black and white.
_OTHERS: Final = (258, 262, 266, 292, 293, 317, 320, 332, 338, 339, 529, 530, 531, 532)
_STRIPS: Final = (_STRIP_OFFSETS, _STRIP_ROWS, _STRIP_BYTES)
_TILES: Final = (_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES)
_KEPT: Final = frozenset(
    {_WIDTH, _HEIGHT, _COMPRESSION, _SAMPLES, _PLANAR, *_STRIPS, *_TILES, *_OTHERS}
)
# None, three fax codings, LZW, deflate (two numbers), PackBits.
_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, 8, 32946, 32773})
_SIZES_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_CODES: Final = {1: "B", 3: "H", 4: "I"}
_SEPARATE_PLANES: Final = 2
_INLINE_BYTES: Final = 4


@dataclass(frozen=True)
class _Tag:
    kind: int
    count: int
    entry: bytes  # as in the directory
    value: bytes  # padded to four bytes if it is part of the entry


def read_tiff(data: bytes) -> Container:
    """The first page of the file, and its orientation."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        tags = _read_directory(data, order)
        if _first(tags, _COMPRESSION, order, default=1) not in _COMPRESSIONS:
            raise ImageError(
                "unsupported_format",
                "image/tiff: compression is not none, fax, LZW, deflate or PackBits",
            )
        _check_strips(data, tags, order)
        orientation = _first(tags, _ORIENTATION, order, default=1)
    except (struct.error, KeyError) as error:
        raise ImageError("corrupt", f"image/tiff: a broken directory ({error})") from error
    entries = [tags[tag].entry for tag in sorted(tags) if tag in _KEPT]
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    padding = bytes(len(data) % 2)  # a directory begins at an even offset
    start = struct.pack(f"{order}I", len(data) + len(padding))
    return Container(
        b"".join([data[:4], start, data[8:], padding, directory]), orientation=orientation
    )


def _read_directory(data: bytes, order: str) -> dict[int, _Tag]:
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    tags: dict[int, _Tag] = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, at)
        if tag in tags or (tag not in _KEPT and tag != _ORIENTATION):
            continue
        if length > MAX_PARTS:
            raise ImageError("too_many_parts", f"image/tiff: {length} values in the tag {tag}")
        size_bytes = _SIZES_BYTES[kind] * length
        place = at + 8
        if size_bytes > _INLINE_BYTES:
            (place,) = struct.unpack_from(f"{order}I", data, at + 8)
        value = data[place : place + max(size_bytes, _INLINE_BYTES)]
        tags[tag] = _Tag(kind, length, data[at : at + 12], value)
    return tags


def _numbers(tag: _Tag, order: str) -> tuple[int, ...]:
    return struct.unpack_from(f"{order}{tag.count}{_CODES[tag.kind]}", tag.value)


def _first(tags: Mapping[int, _Tag], wanted: int, order: str, default: int | None = None) -> int:
    if wanted not in tags and default is not None:
        return default
    numbers = _numbers(tags[wanted], order)
    if not numbers:
        raise KeyError(wanted)
    return numbers[0]


def _check_strips(data: bytes, tags: Mapping[int, _Tag], order: str) -> None:
    """Refuse more strips (or tiles) than the page needs, and overlapping ones."""
    width_px, height_px = _first(tags, _WIDTH, order), _first(tags, _HEIGHT, order)
    tiled = _TILE_OFFSETS in tags
    if tiled == (_STRIP_OFFSETS in tags):
        raise ImageError("corrupt", "image/tiff: it needs either strips or tiles")
    if tiled:
        across, down = _first(tags, _TILE_WIDTH, order), _first(tags, _TILE_HEIGHT, order)
    else:
        across, down = width_px, _first(tags, _STRIP_ROWS, order, default=height_px)
    if not (across and down):
        raise ImageError("corrupt", "image/tiff: a strip of no size")
    planar = _first(tags, _PLANAR, order, default=1) == _SEPARATE_PLANES
    planes = _first(tags, _SAMPLES, order, default=1) if planar else 1
    needed = -(-width_px // across) * -(-height_px // down) * planes
    sizes_bytes = _numbers(tags[_TILE_BYTES if tiled else _STRIP_BYTES], order)
    count = tags[_TILE_OFFSETS if tiled else _STRIP_OFFSETS].count
    if count > needed or count != len(sizes_bytes) or 0 in sizes_bytes:
        raise ImageError("corrupt", f"image/tiff: {count} strips where the size asks for {needed}")
    if sum(sizes_bytes) > len(data):
        raise ImageError("truncated", "image/tiff: its strips overlap, or lie outside the file")
