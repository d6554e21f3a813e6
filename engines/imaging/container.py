"""What every container reader gives: the plain file for the decoder, and the metadata kept."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Container:
    """An upload made ready for its decoder.

    Attributes:
        data: a file of the same format that holds nothing but what makes pixels.
        exif: the EXIF block of the upload, not yet parsed, or None.
        orientation: 1..8 where the container itself says it (TIFF), or None.
    """

    data: bytes
    exif: bytes | None = None
    orientation: int | None = None
