"""What is refused, and the limits that an upload is held to."""

from dataclasses import dataclass
from typing import Final

# Segments, chunks, blocks or strips of one file. A long GIF comment or a PNG written in tiny
# pieces has thousands; each costs about a microsecond in a decoder that is written in Python.
MAX_PARTS: Final = 65_536


class ImageError(ValueError):
    """An upload that is not an image to judge.

    Attributes:
        code: ``empty``, ``too_many_bytes``, ``unsupported_format``, ``too_many_parts``,
            ``too_many_pixels``, ``too_many_scans``, ``too_small``, ``truncated``, ``corrupt`` or
            ``out_of_memory`` (which may be the machine's fault rather than the image's).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        # The default would call the constructor with the message alone: processes could
        # then not hand this error on.
        return type(self), (self.code, str(self))


@dataclass(frozen=True)
class Limits:
    """What an upload may cost before it is decoded."""

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_jpeg_scans: int = 64
    min_side_px: int = 16

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_jpeg_scans", "min_side_px"):
            if getattr(self, name) < 1:
                raise ValueError(f"Limits.{name} must be at least 1")


class PartBudget:
    """How many more parts of a container may be looked at."""

    def __init__(self) -> None:
        self._left = MAX_PARTS

    def spend(self) -> None:
        """Spend one part; ``ImageError`` when none is left."""
        self._left -= 1
        if self._left < 0:
            raise ImageError("too_many_parts", f"over {MAX_PARTS} segments or chunks in the file")
