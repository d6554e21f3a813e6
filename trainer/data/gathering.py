"""A tree of files, such as unpacked packages -> folders of real pictures that a run can read.

In: a folder, and a ``GatherConfig``. Out: ``real/NAME/*`` and ``sources.jsonl``, which names the
package and the path that each came from. Errors: ``DataError``; a picture that cannot be read is
passed on, named, and left out.

Pictures that are opaque and small enough keep their bytes, and with them what their encoder left;
the others are written as PNG.
"""

import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from PIL import Image

from engines.preprocess import ImageError, Limits, decode_image
from trainer.config.gather import FolderConfig, GatherConfig
from trainer.data.errors import DataError
from trainer.data.lines import write_lines
from trainer.data.manifest import SIDECAR, Origin
from trainer.data.spread import evenly

_DIGEST_LETTERS = 8  # of a SHA-256: two pictures of one name in different places stay apart


@dataclass(frozen=True)
class Gathered:
    """A folder's name, how many pictures it got, and how many were smaller than asked for."""

    name: str
    images: int
    small: int


def gather(
    config: GatherConfig, tree: Path, output: Path, on_skip: Callable[[Path, ImageError], None]
) -> list[Gathered]:
    """Copy what the configuration names.

    Args:
        config: the folders to make.
        tree: the first part of a path in it is named as the source (a package).
        output: must not hold a ``real/`` yet.
        on_skip: is told of each picture that cannot be read, and why.
    """
    if (output / "real").exists():
        raise DataError(f"{output}/real exists: name another --output, or delete it")
    # Whole or not at all: half a data set looks like one.
    partial = output / "real.part"
    shutil.rmtree(partial, ignore_errors=True)
    done: list[Gathered] = []
    origins: list[Origin] = []
    for folder in config.folders:
        found, small = _gather_folder(folder, tree, partial, on_skip)
        if not found:
            raise DataError(
                f"{folder.name}: no picture of {folder.min_px} px in {tree} matches "
                f"{', '.join(folder.patterns)}: unpack what it names, or change its patterns"
            )
        origins += found
        done.append(Gathered(folder.name, len(found), small))
    write_lines(output / SIDECAR, origins)
    partial.replace(output / "real")
    return done


def _gather_folder(
    folder: FolderConfig, tree: Path, target: Path, on_skip: Callable[[Path, ImageError], None]
) -> tuple[list[Origin], int]:
    """Write one folder; returns where each picture came from, and how many were too small."""
    found: dict[str, Origin] = {}  # by digest: a copy is taken once
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
        if digest not in found:
            name = f"{folder.name}/{path.stem}-{digest[:_DIGEST_LETTERS]}{picture.suffix}"
            (target / folder.name).mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(picture.data)
            found[digest] = _origin(f"real/{name}", path.relative_to(tree))
    return list(found.values()), small


@dataclass(frozen=True)
class _Bytes:
    data: bytes
    suffix: str


def _matching(folder: FolderConfig, tree: Path) -> list[Path]:
    found = {path for pattern in folder.patterns for path in tree.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not _excluded(path.relative_to(tree), folder))


def _excluded(path: Path, folder: FolderConfig) -> bool:
    return any(fnmatchcase(path.as_posix(), pattern) for pattern in folder.exclude)


def _picture(path: Path, folder: FolderConfig) -> _Bytes | None:
    """What to write for a picture; None where it is too small."""
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


def _origin(file: str, path: Path) -> Origin:
    return Origin(file=file, repo=path.parts[0], path=Path(*path.parts[1:]).as_posix())
