"""Photographs -> the region of each that is regenerated.

In: folders of photographs. Out: for each photograph that is large enough, a region of uint8 RGB
[S, S, 3], on disk without loss. Errors: ``DataError`` for a missing folder, or a corrupt
photograph where ``strict``; otherwise it is named, left out and counted.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.preprocess import ImageError, Limits, decode_image
from trainer.config.fakes import PhotographsConfig
from trainer.data.errors import DataError
from trainer.data.spread import evenly
from trainer.fakes.files import Notify, read_pixels, write_pixels

_GRID_PX = 8  # a region begins where a JPEG block does


@dataclass(frozen=True)
class Region:
    """A part of a photograph, and where it lies."""

    photograph: str  # real/FOLDER/FILE
    sha256: str  # of the photograph's file
    scale: float
    path: Path  # real/FOLDER/NAME.png, beneath the output folder

    @property
    def name(self) -> str:
        """The file's name, which its regenerations share."""
        return self.path.name


def regions(
    config: PhotographsConfig, output: Path, *, strict: bool, notify: Notify
) -> list[Region]:
    """Cut the regions that are not cut yet; returns them all."""
    found, skipped, small = [], 0, 0
    for photograph, path in _photographs(config):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        target = Path("real") / path.parent.name / f"{path.stem}-{digest[:8]}.png"
        try:
            pixels_HWC = decode_image(data, Limits()).pixels_HWC
        except ImageError as error:
            if strict:
                raise DataError(f"{photograph}: {error}; remove it, or drop --strict") from error
            skipped += 1
            notify(f"skipped {photograph}: {error}")
            continue
        scale = _scale(pixels_HWC, config, digest)
        if scale is None:
            small += 1
            continue
        if not (output / target).exists():
            write_pixels(output / target, cut_region(pixels_HWC, scale, config.region_px))
        found.append(Region(photograph, digest, scale, target))
    notify(
        f"{len(found)} regions of {config.region_px} px; {small} photographs are smaller, "
        f"{skipped} were skipped"
    )
    return found


def _photographs(config: PhotographsConfig) -> Iterator[tuple[str, Path]]:
    if not config.roots:
        raise DataError("no photographs: set photographs.roots, or give --data DIR")
    seen: set[str] = set()
    for wanted in config.folders:
        folders = [
            folder
            for root in config.roots
            for folder in sorted((root / "real").glob("*"))
            if folder.is_dir() and fnmatchcase(folder.name, wanted)
        ]
        if not folders:
            where = ", ".join(str(root / "real") for root in config.roots)
            raise DataError(f"photographs.folders: no folder {wanted!r} in {where}")
        for folder in folders:
            for path in evenly(_files(folder, config.exclude), config.images_per_folder):
                key = f"real/{folder.name}/{path.name}"
                if key not in seen:
                    seen.add(key)
                    yield key, path


def _files(folder: Path, exclude: tuple[str, ...]) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and not any(fnmatchcase(f"real/{folder.name}/{path.name}", one) for one in exclude)
    )


def _scale(pixels_HWC: NDArray[np.uint8], config: PhotographsConfig, digest: str) -> float | None:
    """One of the scales at which the photograph still holds a region, drawn by its digest."""
    fitting = [one for one in config.scales if min(pixels_HWC.shape[:2]) * one >= config.region_px]
    return fitting[int(digest[:8], 16) % len(fitting)] if fitting else None


def cut_region(pixels_HWC: NDArray[np.uint8], scale: float, side_px: int) -> NDArray[np.uint8]:
    """The central region of a photograph, shrunk first where the scale says so."""
    if scale < 1:
        size = tuple(max(side_px, round(length * scale)) for length in pixels_HWC.shape[1::-1])
        image = Image.fromarray(pixels_HWC).resize((size[0], size[1]), Image.Resampling.LANCZOS)
        pixels_HWC = np.asarray(image)
    top, left = ((length - side_px) // 2 // _GRID_PX * _GRID_PX for length in pixels_HWC.shape[:2])
    return np.ascontiguousarray(pixels_HWC[top : top + side_px, left : left + side_px])


def region_pixels(region: Region, output: Path) -> NDArray[np.uint8]:
    """A region's pixels, from its file."""
    return read_pixels(output / region.path)
