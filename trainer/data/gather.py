"""Collect real pictures from a tree of files, such as unpacked packages.

Writes ``real/NAME/*`` and ``sources.jsonl``, which names the package and path of each picture.
Pictures that are opaque and small enough keep their bytes, and with them the traces of their
encoder; the others are written as PNG. Errors: ``DataError``.
"""

import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from engines.preprocess import ImageError, Limits, decode_image
from trainer.config import Count, Part
from trainer.data.dataset import evenly
from trainer.data.manifest import SIDECAR, Origin, write_lines
from trainer.errors import DataError

_DIGEST_LETTERS = 8  # of a SHA-256: two pictures of one name in different places stay apart
Level = Annotated[int, Field(ge=0, le=255)]


class FolderConfig(Part):
    """A folder of real pictures, and where in the tree they come from."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    patterns: Annotated[tuple[str, ...], Field(min_length=1)]  # of paths in the tree, as a shell's
    exclude: tuple[str, ...] = ()
    images: Count = 1000  # of what matches, large enough or not; evenly spread by path
    min_px: Count = 224  # of the shorter side
    longer_px: Count = 1600  # a larger picture is shrunk to it
    # What shows where a picture is transparent: pixels there were never meant to be seen.
    background: tuple[Level, Level, Level] = (255, 255, 255)


class GatherConfig(Part):
    """A data set out of a tree of files."""

    folders: Annotated[tuple[FolderConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [folder.name for folder in self.folders]
        if len(set(names)) < len(names):
            raise ValueError("two folders have the same name")
        return self


@dataclass(frozen=True)
class GatheredFolder:
    """How many pictures a folder got, and how many were too small for it."""

    name: str
    images: int
    small: int


def gather(
    config: GatherConfig, tree: Path, output: Path, on_skip: Callable[[Path, ImageError], None]
) -> list[GatheredFolder]:
    """Copy the pictures that the configuration names.

    Args:
        config: the folders to make.
        tree: where to look; the first part of a path in it is recorded as the repository.
        output: must not contain ``real/`` yet.
        on_skip: called with each picture that cannot be read, and the reason.
    """
    if (output / "real").exists():
        raise DataError(f"{output}/real exists: name another --output, or delete it")
    # Whole or not at all: half a data set looks like a whole one.
    partial = output / "real.part"
    shutil.rmtree(partial, ignore_errors=True)
    done: list[GatheredFolder] = []
    origins: list[Origin] = []
    for folder in config.folders:
        copied, small = _gather_folder(folder, tree, partial, on_skip)
        if not copied:
            raise DataError(
                f"{folder.name}: no picture of {folder.min_px} px in {tree} matches "
                f"{', '.join(folder.patterns)}: unpack what it names, or change its patterns"
            )
        origins += copied
        done.append(GatheredFolder(folder.name, len(copied), small))
    write_lines(output / SIDECAR, origins)
    partial.replace(output / "real")
    return done


def _gather_folder(
    folder: FolderConfig, tree: Path, target: Path, on_skip: Callable[[Path, ImageError], None]
) -> tuple[list[Origin], int]:
    """Write a folder; returns where each picture came from, and how many were too small."""
    copied: dict[str, Origin] = {}  # by digest: equal files are copied once
    small = 0
    for path in evenly(_matching(folder, tree), folder.images):
        try:
            picture = _picture(path, folder)
        except ImageError as error:
            on_skip(path, error)
            continue
        if picture is None:
            small += 1
            continue
        digest = hashlib.sha256(picture.data).hexdigest()
        if digest not in copied:
            name = f"{folder.name}/{path.stem}-{digest[:_DIGEST_LETTERS]}{picture.suffix}"
            (target / folder.name).mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(picture.data)
            repo, *inner = path.relative_to(tree).parts
            copied[digest] = Origin(file=f"real/{name}", repo=repo, path=Path(*inner).as_posix())
    return list(copied.values()), small


@dataclass(frozen=True)
class _Bytes:
    data: bytes
    suffix: str


def _matching(folder: FolderConfig, tree: Path) -> list[Path]:
    paths = {path for pattern in folder.patterns for path in tree.glob(pattern) if path.is_file()}
    names = {path.relative_to(tree).as_posix(): path for path in paths}
    excluded = {name for pattern in folder.exclude for name in names if fnmatchcase(name, pattern)}
    return sorted(path for name, path in names.items() if name not in excluded)


def _picture(path: Path, folder: FolderConfig) -> _Bytes | None:
    """The bytes to write for a picture; None where it is too small."""
    data = path.read_bytes()
    pixels_HWC = decode_image(data, Limits()).pixels_HWC
    height_px, width_px = pixels_HWC.shape[:2]
    if min(height_px, width_px) < folder.min_px:
        return None
    with Image.open(io.BytesIO(data)) as image:
        transparent = image.has_transparency_data
        shown = _flat(image, folder) if transparent else Image.fromarray(pixels_HWC)
    if not transparent and max(height_px, width_px) <= folder.longer_px:
        return _Bytes(data, path.suffix.lower())
    factor = min(1.0, folder.longer_px / max(shown.size))
    size = (max(1, round(shown.width * factor)), max(1, round(shown.height * factor)))
    if min(size) < folder.min_px:
        return None
    buffer = io.BytesIO()
    shown.resize(size, Image.Resampling.LANCZOS).save(buffer, "PNG")
    return _Bytes(buffer.getvalue(), ".png")


def _flat(image: Image.Image, folder: FolderConfig) -> Image.Image:
    """A picture over its background, RGB."""
    layer = image.convert("RGBA")
    below = Image.new("RGBA", layer.size, (*folder.background, 255))
    return Image.fromarray(np.asarray(Image.alpha_composite(below, layer).convert("RGB")))
