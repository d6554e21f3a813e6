"""A tree of files becomes folders of real pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.cli import main
from trainer.data.gather import FolderConfig, GatherConfig, gather
from trainer.errors import DataError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two packages: photographs of several sizes, a drawing with a hole, a broken file."""
    tree, random = tmp_path / "tree", np.random.default_rng(0)
    for package in ("photos", "drawn"):
        (tree / package / "usr").mkdir(parents=True)
    for name, size in (("a", (300, 240)), ("b", (100, 240)), ("large", (900, 600))):
        pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tree / f"photos/usr/{name}.jpg")
    (tree / "photos/usr/copy.jpg").write_bytes((tree / "photos/usr/a.jpg").read_bytes())
    (tree / "photos/usr/broken.jpg").write_bytes(b"no picture")
    hole = np.full((240, 240, 4), 255, dtype=np.uint8)
    hole[:, :120] = (250, 0, 0, 0)  # red, but not to be seen
    Image.fromarray(hole).save(tree / "drawn/usr/hole.png")
    return tree


PHOTOS = FolderConfig(name="photos", patterns=("photos/**/*.jpg",), longer_px=400)
DRAWN = FolderConfig(name="drawn", patterns=("drawn/*/*.png",), background=(10, 20, 30))


def names(output: Path, folder: str) -> list[str]:
    """The stems of a folder's files, without their digests."""
    return sorted(path.name.rsplit("-", 1)[0] for path in (output / "real" / folder).iterdir())


def test_what_is_large_enough_is_taken_once_and_its_origin_written_down(
    tree: Path, tmp_path: Path
) -> None:
    """Small ones are counted, broken ones passed on, copies taken once."""
    output, skipped = tmp_path / "out", list[Path]()
    done = gather(
        GatherConfig(folders=(PHOTOS,)), tree, output, lambda path, _: skipped.append(path)
    )
    assert names(output, "photos") == ["a", "large"]
    assert (done[0].images, done[0].small) == (2, 1)
    assert [path.name for path in skipped] == ["broken.jpg"]
    lines = [json.loads(line) for line in (output / "sources.jsonl").read_text().splitlines()]
    assert [(one["repo"], one["path"]) for one in lines] == [
        ("photos", "usr/a.jpg"),
        ("photos", "usr/large.jpg"),
    ]
    assert all((output / one["file"]).exists() for one in lines)


def test_an_opaque_picture_keeps_its_bytes_and_a_large_one_is_shrunk(
    tree: Path, tmp_path: Path
) -> None:
    """What its encoder left stays where nothing need be done."""
    output = tmp_path / "out"
    gather(GatherConfig(folders=(PHOTOS,)), tree, output, lambda *_: None)
    kept, shrunk = sorted((output / "real/photos").iterdir())
    assert kept.read_bytes() == (tree / "photos/usr/a.jpg").read_bytes()
    with Image.open(shrunk) as image:
        assert (image.format, image.size) == ("PNG", (400, 267))


def test_what_is_transparent_shows_the_background(tree: Path, tmp_path: Path) -> None:
    """Pixels under a transparent place were never meant to be seen."""
    output = tmp_path / "out"
    gather(GatherConfig(folders=(DRAWN,)), tree, output, lambda *_: None)
    with Image.open(next((output / "real/drawn").iterdir())) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (240, 240, 3)
    assert (pixels[:, :120] == (10, 20, 30)).all()
    assert (pixels[:, 120:] == 255).all()


def test_only_so_many_are_taken_evenly_and_what_is_excluded_is_not(
    tree: Path, tmp_path: Path
) -> None:
    """``images`` counts what matches, in the order of paths."""
    one = PHOTOS.model_copy(update={"images": 1, "exclude": ("*/a.jpg",)})
    (tree / "photos/usr/broken.jpg").unlink()
    (tree / "photos/usr/b.jpg").unlink()
    output = tmp_path / "out"
    gather(GatherConfig(folders=(one,)), tree, output, lambda *_: None)
    assert names(output, "photos") == ["copy"]


@pytest.mark.parametrize(
    ("folder", "text"),
    [
        (FolderConfig(name="x", patterns=("absent/*",)), "unpack what it names"),
        (PHOTOS.model_copy(update={"min_px": 5000}), "no picture of 5000 px"),
    ],
)
def test_a_folder_that_stays_empty_is_an_error(
    tree: Path, tmp_path: Path, folder: FolderConfig, text: str
) -> None:
    """A package that was not unpacked must not go unnoticed."""
    output = tmp_path / "out"
    with pytest.raises(DataError, match=text):
        gather(GatherConfig(folders=(DRAWN, folder)), tree, output, lambda *_: None)
    assert not (output / "real").exists()
    gather(GatherConfig(folders=(DRAWN,)), tree, output, lambda *_: None)  # nothing to delete first
    assert names(output, "drawn") == ["hole"]


def test_the_command_says_what_it_took(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the outside: counts by folder, what was skipped, and no second set over a first."""
    config, output = tmp_path / "gather.toml", tmp_path / "out"
    config.write_text('[[folders]]\nname = "photos"\npatterns = ["photos/*/*.jpg"]\n')
    command = ["data", "gather", "--config", str(config), "--tree", str(tree), "-o", str(output)]
    assert main(command, {}) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "broken.jpg: " in said
    assert "real/photos: 2, 1 left out as too small" in said
    assert "2 pictures, 1 skipped" in said
    assert main(command, {}) == 1
    assert "exists: name another --output" in " ".join(capsys.readouterr().err.split())
