"""Makes the sample images of the demo: real photographs and generated pictures, encoded alike.

In: the folders with the photographs that scikit-image and scikit-learn install, and a folder of
generated pictures. Out: ``real/*``, ``fake/*`` and ``labels.json`` beside this file (or in
``--output``). Errors: exit status 1 with a message where a source is missing or too small.

Nothing is resampled: photographs are cut, because resampling would remove what a detector reads.
Both classes get the same sizes and formats, so that neither reveals the class.

    python -m deploy.embedded.samples.make_samples \
        --skimage SITE/skimage/data --sklearn SITE/sklearn/datasets/images --generated DIR
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image
from rich.console import Console

CROP_PX = 256
GRID_PX = 8  # cuts follow the blocks of JPEG sources
GENERATED_COUNT = 40
GENERATED_TERMS = "CC-BY 4.0"


@dataclass(frozen=True)
class Encoding:
    """One way to write a picture; ``options`` are Pillow's."""

    name: str
    suffix: str
    options: dict[str, int | bool]


ENCODINGS = (
    Encoding("JPEG", ".jpg", {"quality": 95, "subsampling": 0}),
    Encoding("WEBP", ".webp", {"quality": 90}),
    Encoding("JPEG", ".jpg", {"quality": 85, "subsampling": 2}),
    Encoding("PNG", ".png", {"optimize": True}),
    Encoding("JPEG", ".jpg", {"quality": 75, "subsampling": 2}),
    Encoding("WEBP", ".webp", {"quality": 80}),
)


@dataclass(frozen=True)
class Photograph:
    """A photograph and how many places to cut from it, in columns and rows."""

    package: str
    file: str
    terms: str
    columns: int
    rows: int


PHOTOGRAPHS = (
    Photograph("skimage", "chelsea.png", "CC0", 2, 1),
    Photograph("skimage", "coffee.png", "CC0", 3, 2),
    Photograph("skimage", "hubble_deep_field.jpg", "public domain", 3, 3),
    Photograph("skimage", "rocket.jpg", "public domain", 4, 2),
    Photograph("skimage", "retina.jpg", "CC0", 3, 1),
    Photograph("sklearn", "china.jpg", "CC-BY 2.0", 3, 2),
    Photograph("sklearn", "flower.jpg", "CC-BY 2.0", 3, 2),
)


@dataclass(frozen=True)
class Label:
    """What ``labels.json`` says of one file."""

    label: str
    source: str
    terms: str
    left_px: int
    top_px: int


def main() -> int:
    """Write the samples; return the exit status."""
    console = Console(stderr=True)
    options = _parse(sys.argv[1:])
    folders = {"skimage": options.skimage, "sklearn": options.sklearn}
    try:
        pictures = [*_cut_photographs(folders), *_read_generated(options.generated)]
    except (OSError, ValueError) as error:
        console.print(f"make_samples: {error}", style="red", markup=False)
        return 1
    labels = _write(pictures, options.output)
    text = json.dumps({name: asdict(label) for name, label in labels.items()}, indent=1)
    (options.output / "labels.json").write_text(text + "\n", encoding="utf-8")
    total_bytes = sum((options.output / name).stat().st_size for name in labels)
    console.print(f"{len(labels)} samples, {total_bytes / 1e6:.1f} MB, in {options.output}")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make_samples", description="Make the demo's samples.")
    parser.add_argument("--skimage", type=Path, required=True, help="skimage/data of the package")
    parser.add_argument(
        "--sklearn", type=Path, required=True, help="sklearn/datasets/images of the package"
    )
    parser.add_argument(
        "--generated", type=Path, required=True, help="generated pictures; the last ones are taken"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    return parser.parse_args(arguments)


def _cut_photographs(folders: dict[str, Path]) -> Iterator[tuple[Label, Image.Image]]:
    for photograph in PHOTOGRAPHS:
        path = folders[photograph.package] / photograph.file
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        if min(image.size) < CROP_PX:
            raise ValueError(f"{path} is smaller than {CROP_PX} px: it is another picture")
        for top_px in _places(image.height, photograph.rows):
            for left_px in _places(image.width, photograph.columns):
                source = f"{photograph.package}/{photograph.file}"
                label = Label("real", source, photograph.terms, left_px, top_px)
                yield label, image.crop((left_px, top_px, left_px + CROP_PX, top_px + CROP_PX))


def _places(length_px: int, count: int) -> list[int]:
    """``count`` evenly spread starts of a crop, away from the very edge if there is only one."""
    room_px = length_px - CROP_PX
    if count == 1:
        return [room_px // 2 // GRID_PX * GRID_PX]
    return [room_px * index // (count - 1) // GRID_PX * GRID_PX for index in range(count)]


def _read_generated(folder: Path) -> Iterator[tuple[Label, Image.Image]]:
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".png")
    if len(paths) < GENERATED_COUNT:
        raise ValueError(f"{folder} holds {len(paths)} PNG files, {GENERATED_COUNT} are needed")
    for path in paths[-GENERATED_COUNT:]:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        if image.size != (CROP_PX, CROP_PX):
            raise ValueError(f"{path} is {image.size}, not {CROP_PX} px square: cut it first")
        yield Label("fake", f"sd1/{path.name}", GENERATED_TERMS, 0, 0), image


def _write(pictures: list[tuple[Label, Image.Image]], output: Path) -> dict[str, Label]:
    labels: dict[str, Label] = {}
    counts = {"real": 0, "fake": 0}
    for label, image in pictures:
        index = counts[label.label]
        counts[label.label] += 1
        encoding = ENCODINGS[index % len(ENCODINGS)]
        name = f"{label.label}/{index:03d}{encoding.suffix}"
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, encoding.name, **encoding.options)
        labels[name] = label
    return labels


if __name__ == "__main__":
    sys.exit(main())
