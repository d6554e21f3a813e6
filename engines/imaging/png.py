"""PNG: the chunks that make pixels.

In: bytes. Out: a ``Container``. Errors: ``ImageError``.

A few kilobytes of compressed text or colour profile may inflate to gigabytes; an honest one (the
workflow that a generator stores) may be large enough for a decoder to refuse a sound image.
Of an animation, the default image is kept.
"""

from typing import Final

from engines.imaging.container import Container
from engines.imaging.limits import PartBudget

_SIGNATURE_BYTES: Final = 8
_OVERHEAD_BYTES: Final = 12  # length, type, CRC
_KEPT: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def read_png(data: bytes) -> Container:
    """The file with nothing but the chunks that make pixels; the EXIF block beside it."""
    budget = PartBudget()
    at = _SIGNATURE_BYTES
    kept, exif = [data[:at]], None
    while at < len(data):
        budget.spend()
        kind = data[at + 4 : at + 8]
        end = at + _OVERHEAD_BYTES + int.from_bytes(data[at : at + 4])
        if kind in _KEPT:
            kept.append(data[at:end])
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        at = len(data) if kind == b"IEND" else end
    return Container(b"".join(kept), exif)
