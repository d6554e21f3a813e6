"""The demo's pictures: the samples that ship with it, or a user's own directory.

To make a few hundred pictures with distinct bytes, the 80 samples are encoded again in their own format: at another
quality, or (PNG) cut by a few pixels. No picture is resampled.
"""

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, cast

from PIL import Image

Label = Literal["real", "fake"]

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".mpo"}
)
QUALITY_STEP = 3
QUALITY_BEST = 94
ENCODE_THREADS = 2


class DemoError(Exception):
    """The demo cannot continue; the message says what to do."""


@dataclass(frozen=True)
class DemoPicture:
    """An encoded image on disk."""

    path: Path
    sha256: str
    label: Label | None


def sample_pictures(spool: Path, count: int) -> list[DemoPicture]:
    """``count`` labelled pictures with distinct bytes, made from the samples into ``spool``."""
    samples = [path for label in ("real", "fake") for path in _images_in(SAMPLES / label)]
    if not samples:
        raise DemoError(f"there are no sample images below {SAMPLES}: check out the repository")
    # Real and fake alternate, so that a small demo has both.
    half = len(samples) // 2
    turns = [path for pair in zip(samples[:half], samples[half:], strict=False) for path in pair]
    spool.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(ENCODE_THREADS) as pool:
        jobs = [(turns[index % len(turns)], index // len(turns)) for index in range(count)]
        return list(pool.map(lambda job: _variant(job[0], job[1], spool), jobs))


def folder_pictures(folder: Path, count: int) -> list[DemoPicture]:
    """At most ``count`` images below a directory; folders named ``real`` and ``fake`` label them."""
    if not folder.is_dir():
        raise DemoError(f"{folder} is not a directory: name a directory of images")
    distinct: dict[str, DemoPicture] = {}
    for path in islice(_images_in(folder), count):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        label = _label_of(path.relative_to(folder))
        # Of several copies, keep one that has a label.
        if sha256 not in distinct or distinct[sha256].label is None:
            distinct[sha256] = DemoPicture(path, sha256, label)
    if not distinct:
        raise DemoError(f"{folder} contains no images ({', '.join(sorted(SUFFIXES))})")
    return list(distinct.values())


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        path.resolve()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def _label_of(relative: Path) -> Label | None:
    labels = [part for part in relative.parts[:-1] if part in ("real", "fake")]
    return cast("Label", labels[-1]) if labels else None


def _variant(sample: Path, number: int, spool: Path) -> DemoPicture:
    data = sample.read_bytes()
    label = cast("Label", sample.parent.name)
    if number > 0:
        data = _encoded_again(data, number)
    path = spool / f"{label}-{sample.stem}-{number}{sample.suffix}"
    path.write_bytes(data)
    return DemoPicture(path, hashlib.sha256(data).hexdigest(), label)


def _encoded_again(data: bytes, number: int) -> bytes:
    with Image.open(io.BytesIO(data)) as opened:
        file_format = opened.format or "PNG"
        image = opened.convert("RGB")
    encoders: dict[str, Callable[[Image.Image, io.BytesIO, int], None]] = {
        "JPEG": _lossy("JPEG"),
        "WEBP": _lossy("WEBP"),
    }
    buffer = io.BytesIO()
    encoders.get(file_format, _smaller_png)(image, buffer, number)
    return buffer.getvalue()


def _lossy(file_format: str) -> Callable[[Image.Image, io.BytesIO, int], None]:
    def encode(image: Image.Image, buffer: io.BytesIO, number: int) -> None:
        image.save(buffer, file_format, quality=QUALITY_BEST - QUALITY_STEP * number)

    return encode


def _smaller_png(image: Image.Image, buffer: io.BytesIO, number: int) -> None:
    image.crop((number, number, image.width, image.height)).save(buffer, "PNG")
