"""A manifest: a CSV file with a row for each image, whose ``split`` column divides the data set.

``python -m trainer data manifest`` writes it once; a person may edit it in any spreadsheet. Beside
the images, ``sources.jsonl`` may name the repository and prompt of each. Errors: ``DataError``,
which names the file and the line.
"""

import csv
import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from PIL import Image, JpegImagePlugin
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engines.bundle.files import write_atomically
from engines.preprocess import ImageError, Limits, decode_image
from trainer.config import problems_of
from trainer.data.files import CLASSES, Source
from trainer.errors import DataError

SIDECAR = "sources.jsonl"
# For `deal`, in percent. The threshold split takes photographs alone: generated images set no threshold.
SHARES: Mapping[str, Mapping[str, float]] = {
    "real": {"train": 40, "validation": 8, "calibration": 8, "threshold": 33, "test": 11},
    "fake": {"train": 60, "validation": 12, "calibration": 12, "test": 16},
}
_AGAIN = "write it again with python -m trainer data manifest"
Count = Annotated[int, Field(ge=1)]
Line = TypeVar("Line", bound=BaseModel)


class ManifestRow(BaseModel):
    """An image of a data set. Only ``path`` is required; columns of your own are kept.

    Attributes:
        path: ``real/SOURCE/FILE`` or ``fake/GENERATOR/FILE``.
        label: the first part of the path.
        source: the second.
        split: one of ``SPLITS``; empty where the image is not used.
        sha256: of its bytes; checked where it is given.
        bytes: its size.
        width: in pixels.
        height: in pixels.
        format: the MIME type that the bytes say.
        jpeg_quality: an estimate (1 to 100).
        repo: where the file was published.
        prompt: what the picture was made from.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    path: Annotated[str, Field(pattern=r"^(real|fake)/[^/]+/[^/]+$")]
    label: str = ""
    source: str = ""
    split: Literal["", "train", "validation", "calibration", "threshold", "test"] = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    bytes: Count | None = None
    width: Count | None = None
    height: Count | None = None
    format: str = ""
    jpeg_quality: int | None = None
    repo: str = ""
    prompt: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_cells(cls, cells: dict[str, object]) -> dict[str, object]:
        """An empty cell is a missing value; label and source follow from the path."""
        given = {name: cell for name, cell in cells.items() if cell not in ("", None)}
        label, source, *_ = [*str(given.get("path", "")).split("/"), "", ""]
        return {"label": label, "source": source, **given}

    @model_validator(mode="after")
    def _label_is_the_paths(self) -> Self:
        if f"{self.label}/{self.source}" != self.path.rpartition("/")[0]:
            raise ValueError(
                f"label and source say {self.label}/{self.source}, but the path is {self.path}: "
                "move the file, or correct the row"
            )
        return self


class Origin(BaseModel):
    """A line of ``sources.jsonl``: what is known of a file; other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: str  # real/FOLDER/FILE
    repo: str | None = None
    path: str | None = None  # in its repository
    prompt: str | None = None


def read_manifest(path: Path) -> dict[str, ManifestRow]:
    """Read the rows of a manifest, by path."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            cells = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}): {_AGAIN}") from error
    rows: dict[str, ManifestRow] = {}
    for number, row in enumerate(cells, start=2):
        parsed = _validated(row, ManifestRow, f"{path}, line {number}", f"correct it, or {_AGAIN}")
        if parsed.path in rows:
            raise DataError(f"{path}, line {number}: {parsed.path} has two rows: delete one")
        rows[parsed.path] = parsed
    if not rows:
        raise DataError(f"{path} has no rows: {_AGAIN}")
    return rows


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write a manifest, whole or not at all."""
    content = [row.model_dump(mode="json") for row in rows]
    columns = list(
        dict.fromkeys([*ManifestRow.model_fields, *(name for row in content for name in row)])
    )
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(content)
    write_atomically(path, buffer.getvalue().encode())


def describe(
    files: Sequence[Source],
    origins: Mapping[str, Origin],
    prompts: Sequence[re.Pattern[str]],
    on_skip: Callable[[Source, ImageError], None],
) -> list[ManifestRow]:
    """Describe each file that can be decoded, in the order of their paths.

    Args:
        files: the images; no two may have the same key.
        origins: what is known of them, by key.
        prompts: patterns with a group ``prompt``, for origins that name none. The first that
            matches in the origin's path, or else in the key, says what the picture was made from.
        on_skip: called with each file that cannot be decoded, and the reason.
    """
    rows = []
    for key, same in groupby(sorted(files, key=lambda file: file.key), key=lambda file: file.key):
        file, *others = same
        if others:
            raise DataError(f"{key} is in two roots: a manifest needs every path to be one file")
        try:
            rows.append(_row(file, origins.get(key, Origin(file=key)), prompts))
        except ImageError as error:
            on_skip(file, error)
    return rows


def _row(file: Source, origin: Origin, prompts: Sequence[re.Pattern[str]]) -> ManifestRow:
    data = file.read()
    image = decode_image(data, Limits())
    height_px, width_px = image.pixels_HWC.shape[:2]
    return ManifestRow(
        path=file.key,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        width=width_px,
        height=height_px,
        format=image.mime,
        jpeg_quality=jpeg_quality(data) if image.mime == "image/jpeg" else None,
        repo=origin.repo or "",
        prompt=origin.prompt or _prompt(file, origin, prompts),
    )


def _prompt(file: Source, origin: Origin, prompts: Sequence[re.Pattern[str]]) -> str:
    for text in (origin.path or "", file.key):
        for pattern in prompts:
            if match := pattern.search(text):
                return match["prompt"]
    return ""


def jpeg_quality(data: bytes) -> int | None:
    """Estimate the quality (1 to 100) at which libjpeg's luminance table is as coarse as this file's.

    The tables of cameras are not scaled standard tables; the sums are compared.
    """
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        tables = image.quantization
    if 0 not in tables:
        return None
    wanted = sum(tables[0])
    return min(_coarseness().items(), key=lambda item: abs(item[1] - wanted))[0]


@cache
def _coarseness() -> dict[int, int]:
    """The sum of libjpeg's luminance table at each quality, the finest first."""
    sums = {}
    for quality in range(100, 0, -1):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
        buffer.seek(0)
        with JpegImagePlugin.JpegImageFile(buffer) as image:
            sums[quality] = sum(image.quantization[0])
    return sums


def assign_last(
    rows: Iterable[ManifestRow], pattern: str, count: int, split: str
) -> list[ManifestRow]:
    """Put the last files of each folder, by name, into a split.

    Args:
        rows: the manifest.
        pattern: of paths, such as ``fake/sd1/*``; other rows stay as they are.
        count: how many of each folder.
        split: one of ``SPLITS``, or empty for images that nothing may use.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    every = list(rows)
    for row in every:
        if fnmatchcase(row.path, pattern):
            folders[row.path.rpartition("/")[0]].append(row.path)
    last = {path for paths in folders.values() for path in sorted(paths)[-count:]}
    return [row.model_copy(update={"split": split}) if row.path in last else row for row in every]


def deal(
    rows: Iterable[ManifestRow],
    pattern: str = "*",
    by: Literal["file", "prompt", "repo"] = "prompt",
    shares: Mapping[str, float] | None = None,
) -> list[ManifestRow]:
    """Divide rows without a split by shares, deterministically; a group is never divided.

    Args:
        rows: the manifest.
        pattern: of the paths to divide.
        by: what makes a group; an image without a prompt (or repo) is a group of its own.
        shares: by split, in any unit; ``SHARES`` of its class if None.
    """
    every = list(rows)
    groups: dict[tuple[str, str], list[ManifestRow]] = defaultdict(list)
    for row in every:
        if not row.split and fnmatchcase(row.path, pattern):
            group = "" if by == "file" else getattr(row, by)
            groups[row.label, group or row.path].append(row)
    split_of: dict[str, str] = {}
    for kind in CLASSES:
        own = [rows for (label, _), rows in groups.items() if label == kind]
        split_of |= _dealt(own, shares or SHARES[kind])
    return [
        row.model_copy(update={"split": split_of[row.path]}) if row.path in split_of else row
        for row in every
    ]


def _dealt(groups: list[list[ManifestRow]], shares: Mapping[str, float]) -> dict[str, str]:
    """Give each group to the split that has least of its share; folder after folder, so each is divided."""

    def order(group: list[ManifestRow]) -> tuple[str, str]:
        name = "".join(row.sha256 or row.path for row in group)
        return group[0].source, hashlib.sha256(name.encode()).hexdigest()

    dealt = {name: 0 for name, share in shares.items() if share > 0}
    split_of: dict[str, str] = {}
    for group in sorted(groups, key=order):
        split = min(
            (name for name in shares if shares[name] > 0),
            key=lambda name: (dealt[name] + len(group) / 2) / shares[name],
        )
        dealt[split] += len(group)
        split_of |= {row.path: split for row in group}
    return split_of


def read_origins(roots: Sequence[Path]) -> dict[str, Origin]:
    """Read the ``sources.jsonl`` of the roots, by file."""
    paths = [root / SIDECAR for root in roots if (root / SIDECAR).exists()]
    lines = [
        line for path in paths for line in read_lines(path, Origin, "correct it, or move it away")
    ]
    return {origin.file: origin for origin in lines}


def read_lines(path: Path, kind: type[Line], advice: str) -> list[Line]:
    """Read a file with a JSON object on each line.

    Args:
        path: the file.
        kind: the model of each line.
        advice: what to do where a line does not fit, or where the file is missing.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): {advice}") from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}, line {number}"
        if line.strip():
            try:
                content = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{where} is not JSON ({error}): {advice}") from error
            lines.append(_validated(content, kind, where, advice))
    return lines


def write_lines(path: Path, lines: Iterable[BaseModel]) -> None:
    """Write a JSON object a line, the file whole or not at all; None is left out."""
    text = "".join(f"{line.model_dump_json(exclude_none=True)}\n" for line in lines)
    write_atomically(path, text.encode())


def _validated(content: object, kind: type[Line], where: str, advice: str) -> Line:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{where}: {problems_of(error)}: {advice}") from error
