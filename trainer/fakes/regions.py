"""The regions of photographs that are regenerated, on disk without loss."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.bundle.files import atomic_writer
from engines.preprocess import ImageError, Limits, decode_image
from trainer.config import PhotographsConfig
from trainer.data.dataset import evenly
from trainer.errors import DataError

Notify = Callable[[str], None]
_GRID_PX = 8  # a region begins where a JPEG block does
_FAST = 1  # PNG's compression level: a set is written once and read often


@dataclass(frozen=True)
class Place:
    """A square of a photograph that was reduced by a scale."""

    scale: float
    top_px: int
    left_px: int


@dataclass(frozen=True)
class Region:
    """A part of a photograph, and its file.

    Attributes:
        photograph: ``real/FOLDER/FILE``.
        sha256: of the photograph's file.
        scale: by which the photograph was reduced.
        path: ``real/FOLDER/NAME.png``, beneath the output folder.
    """

    photograph: str
    sha256: str
    scale: float
    path: Path

    @property
    def name(self) -> str:
        """The file's name, which its regenerations share."""
        return self.path.name


def write_pixels(path: Path, pixels_HWC: NDArray[np.uint8]) -> None:
    """Write a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels_HWC)
    with atomic_writer(path) as file:
        image.save(file, "PNG", compress_level=_FAST)


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Read a PNG as uint8 RGB [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def regions(
    config: PhotographsConfig, output: Path, *, strict: bool, notify: Notify
) -> list[Region]:
    """Cut the regions that are not cut yet.

    Returns:
        The regions of every photograph that is large enough.

    Raises:
        DataError: a folder is missing, or a photograph is corrupt and ``strict`` is set.
    """
    cut: list[Region] = []
    large, skipped, small = 0, 0, 0
    for photograph, path in _photographs(config):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        try:
            pixels_HWC = decode_image(data, Limits()).pixels_HWC
        except ImageError as error:
            if strict:
                raise DataError(f"{photograph}: {error}; remove it, or drop --strict") from error
            skipped += 1
            notify(f"skipped {photograph}: {error}")
            continue
        places = _places(pixels_HWC.shape, config, digest)
        large, small = large + bool(places), small + (not places)
        for number, place in places.items():
            name = f"{path.stem}-{digest[:8]}{f'-{number}' if number else ''}.png"
            target = Path("real") / path.parent.name / name
            if not (output / target).exists():
                write_pixels(output / target, cut_region(pixels_HWC, place, config.region_px))
            cut.append(Region(photograph, digest, place.scale, target))
    notify(
        f"{len(cut)} regions of {config.region_px} px from {large} photographs; {small} are too "
        f"small, {skipped} were skipped"
    )
    return cut


def _photographs(config: PhotographsConfig) -> Iterator[tuple[str, Path]]:
    if not config.roots:
        raise DataError("no photographs: set photographs.roots, or give --data DIR")
    seen: set[str] = set()
    for pattern in config.folders:
        folders = [
            folder
            for root in config.roots
            for folder in sorted((root / "real").glob("*"))
            if folder.is_dir() and fnmatchcase(folder.name, pattern)
        ]
        if not folders:
            where = ", ".join(str(root / "real") for root in config.roots)
            raise DataError(f"photographs.folders: there is no folder {pattern!r} in {where}")
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
        and not any(fnmatchcase(f"real/{folder.name}/{path.name}", glob) for glob in exclude)
    )


def _places(shape: tuple[int, ...], config: PhotographsConfig, digest: str) -> dict[int, Place]:
    """The chosen regions of a photograph [H, W, 3] by number; none if it is too small.

    0 is the centre, 1 to 4 are the corners in turn, each at the next of the scales. The digest draws
    the first scale and corner. A region that lies where a region of a lower number does is left out,
    chosen or not, so that two sets of different numbers never share a region.
    """
    side_px = config.region_px
    fitting = [scale for scale in config.scales if min(shape[:2]) * scale >= side_px]
    first_scale, first_corner = int(digest[:8], 16), int(digest[16], 16)
    places: dict[int, Place] = {}
    for number in range(max(config.regions) + 1 if fitting else 0):
        scale = fitting[(first_scale + number) % len(fitting)]
        place = _place(shape, scale, side_px, first_corner + number - 1 if number else None)
        if place not in places.values():
            places[number] = place
    return {number: place for number, place in places.items() if number in config.regions}


def _place(shape: tuple[int, ...], scale: float, side_px: int, corner: int | None) -> Place:
    """The centre, or a corner by its number's last two bits: down, right."""
    room_px = [length - side_px for length in _reduced(shape, scale, side_px)]
    if corner is None:
        top, left = (length // 2 for length in room_px)
    else:
        top, left = room_px[0] * (corner & 1), room_px[1] * (corner >> 1 & 1)
    return Place(scale, top // _GRID_PX * _GRID_PX, left // _GRID_PX * _GRID_PX)


def _reduced(shape: tuple[int, ...], scale: float, side_px: int) -> tuple[int, int]:
    """Height and width of a photograph [H, W, 3] at a scale that leaves a region."""
    height_px, width_px = (max(side_px, round(length * scale)) for length in shape[:2])
    return height_px, width_px


def cut_region(pixels_HWC: NDArray[np.uint8], place: Place, side_px: int) -> NDArray[np.uint8]:
    """A square of a photograph, which is reduced first where the scale is below 1."""
    if place.scale < 1:
        height_px, width_px = _reduced(pixels_HWC.shape, place.scale, side_px)
        image = Image.fromarray(pixels_HWC)
        pixels_HWC = np.asarray(image.resize((width_px, height_px), Image.Resampling.LANCZOS))
    rows = slice(place.top_px, place.top_px + side_px)
    columns = slice(place.left_px, place.left_px + side_px)
    return np.ascontiguousarray(pixels_HWC[rows, columns])
