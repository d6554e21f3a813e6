"""A manifest: every file of a data set with its digest, origin and coding, a JSON a line.

In: files, and beside them ``sources.jsonl``, which may name each file's repository and prompt.
Out: ``Row``s, and a listing that holds what a manifest names and nothing else. Errors:
``DataError``, above all where a file is no longer what the manifest says.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from PIL import Image, JpegImagePlugin
from pydantic import BaseModel, ConfigDict, Field

from engines.preprocess import ImageError, Limits, decode_image
from trainer.data.errors import DataError
from trainer.data.lines import read_lines
from trainer.data.listing import File, Listing, listed
from trainer.data.shards import Kind

SIDECAR = "sources.jsonl"
_AGAIN = "write it again with python -m trainer data manifest"


class Row(BaseModel):
    """A line of a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    path: str  # real/FOLDER/FILE
    kind: Annotated[Kind, Field(alias="class")]
    folder: str  # the source of a photograph, or the generator
    repo: str | None = None  # where the file was published
    prompt: str | None = None  # what the picture was made from
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=1)]
    width_px: Annotated[int, Field(ge=1)]
    height_px: Annotated[int, Field(ge=1)]
    format: str  # the MIME type that its bytes say
    jpeg_quality: int | None = None  # an estimate


class Origin(BaseModel):
    """A line of ``sources.jsonl``: what somebody wrote down of a file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: str  # real/FOLDER/FILE
    repo: str | None = None
    path: str | None = None  # in its repository
    prompt: str | None = None


@dataclass(frozen=True)
class Described:
    """Rows, and the files that could not be decoded."""

    rows: tuple[Row, ...]
    skipped: int


def read_origins(roots: Sequence[Path]) -> dict[str, Origin]:
    """What the roots' sidecars say, by file."""
    paths = [root / SIDECAR for root in roots if (root / SIDECAR).exists()]
    advice = "put it right, or move it away"
    return {one.file: one for path in paths for one in read_lines(path, Origin, advice)}


def describe(
    listing: Listing,
    origins: Mapping[str, Origin],
    prompts: Sequence[re.Pattern[str]],
    on_skip: Callable[[File, ImageError], None],
) -> Described:
    """A row for each file that can be decoded, sorted by path.

    Args:
        listing: the files.
        origins: what is known of them, by their key.
        prompts: patterns with a group ``prompt``, for origins that name none: the first that is
            found in the path of origin, or else in the key, says what the picture was made from.
        on_skip: is told of each file that cannot be decoded, and why.
    """
    rows: dict[str, Row] = {}
    skipped = 0
    for file in listing.files():
        if file.key in rows:
            raise DataError(
                f"{file.key} is in two roots: a manifest needs every path to be one file"
            )
        try:
            rows[file.key] = _row(file, origins.get(file.key, Origin(file=file.key)), prompts)
        except ImageError as error:
            skipped += 1
            on_skip(file, error)
    return Described(tuple(rows[key] for key in sorted(rows)), skipped)


def _row(file: File, origin: Origin, prompts: Sequence[re.Pattern[str]]) -> Row:
    data = file.read()
    image = decode_image(data, Limits())
    height_px, width_px = image.pixels_HWC.shape[:2]
    return Row(
        path=file.key,
        kind=file.kind,
        folder=file.folder,
        repo=origin.repo,
        prompt=origin.prompt or _prompt(file, origin, prompts),
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        width_px=width_px,
        height_px=height_px,
        format=image.mime,
        jpeg_quality=jpeg_quality(data) if image.mime == "image/jpeg" else None,
    )


def _prompt(file: File, origin: Origin, prompts: Sequence[re.Pattern[str]]) -> str | None:
    for text in (origin.path or "", file.key):
        for pattern in prompts:
            if found := pattern.search(text):
                return found["prompt"]
    return None


def jpeg_quality(data: bytes) -> int | None:
    """The quality (1 to 100) at which libjpeg's luminance table is as coarse as this file's.

    An estimate: tables of cameras are no scaled standard tables; the sums are compared.
    """
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        tables = image.quantization
    if 0 not in tables:
        return None
    wanted = sum(tables[0])
    return min(_coarseness().items(), key=lambda one: abs(one[1] - wanted))[0]


@cache
def _coarseness() -> dict[int, int]:
    """The sum of libjpeg's luminance table at each quality, from the finest on."""
    sums = {}
    for quality in range(100, 0, -1):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
        buffer.seek(0)
        with JpegImagePlugin.JpegImageFile(buffer) as image:
            sums[quality] = sum(image.quantization[0])
    return sums


def read_manifest(path: Path) -> dict[str, Row]:
    """The rows of a manifest, by path."""
    rows = {row.path: row for row in read_lines(path, Row, _AGAIN)}
    if not rows:
        raise DataError(f"{path} names no file: {_AGAIN}")
    return rows


def held_to(listing: Listing, rows: Mapping[str, Row], path: Path) -> Listing:
    """What a manifest names of a listing; all of it must be there."""
    found: dict[str, File] = {}
    for file in listing.files():
        found.setdefault(file.key, file)
    missing = sorted(rows.keys() - found.keys())
    if missing:
        raise DataError(
            f"{len(missing)} files of {path} are in no root, the first is {missing[0]}: "
            f"restore them, name their root, or {_AGAIN}"
        )
    return listed(_named(found, rows))


def _named(found: Mapping[str, File], rows: Mapping[str, Row]) -> Iterator[File]:
    for key in rows:
        yield found[key]


def check_digest(row: Row, sha256: str, path: Path) -> None:
    """Refuse a file that is not the one a manifest names."""
    if row.sha256 != sha256:
        raise DataError(
            f"{row.path} has changed since {path} was written (sha256 {sha256[:12]}..., "
            f"not {row.sha256[:12]}...): restore it, or {_AGAIN}"
        )
