"""GIF: the first frame, with the screen and the control block that it is drawn by.

In: bytes. Out: a ``Container``. Errors: ``ImageError``.
"""

from typing import Final

from engines.imaging.container import Container
from engines.imaging.limits import ImageError, PartBudget

_SCREEN_BYTES: Final = 13
_CONTROL_LABEL: Final = 0xF9
_CONTROL_BYTES: Final = 8
_HAS_PALETTE: Final = 0x80


def read_gif(data: bytes) -> Container:
    """The file from its first frame on, without the extensions before it but the control block."""
    if len(data) < _SCREEN_BYTES:
        raise ImageError("truncated", "image/gif: it ends within its header")
    budget = PartBudget()
    flags = data[10]
    at = head = _SCREEN_BYTES + (3 << (flags & 7) + 1 if flags & _HAS_PALETTE else 0)
    control = b""
    while at < len(data):
        budget.spend()
        kind = data[at : at + 1]
        if kind == b",":
            return Container(data[:head] + control + data[at:])
        if kind == b";":
            break
        if kind != b"!":
            raise ImageError("corrupt", "image/gif: something other than a block where one begins")
        end = _skip_sub_blocks(data, at + 2, budget)
        if data[at + 1 : at + 2] == bytes([_CONTROL_LABEL]) and end - at == _CONTROL_BYTES:
            control = data[at:end]
        at = end
    raise ImageError("truncated", "image/gif: it has no image in it")


def _skip_sub_blocks(data: bytes, at: int, budget: PartBudget) -> int:
    while at < len(data) and data[at]:
        budget.spend()
        at += 1 + data[at]
    return at + 1
