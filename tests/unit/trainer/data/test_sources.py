"""The splits hold what the configuration says, and nothing leaks between them."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from engines.preprocess import ImageError
from tests.support.trainer import tiny_config
from trainer.data.errors import DataError
from trainer.data.sources import Source, load, scan


def test_splits_hold_their_folders(root: Path) -> None:
    """Every split lists the files of its folders, with their class."""
    splits = scan(tiny_config(root).data).splits
    assert {one.key for one in splits["validation"]} == {
        f"{kind}/{index:03}.png" for kind in ("real/b", "fake/y") for index in range(4)
    }
    assert [one.label for one in splits["threshold"]] == [0] * 4


def test_a_slice_takes_part_of_a_folder_by_name(root: Path) -> None:
    """``folder[:-1]`` leaves out the last file by name."""
    config = tiny_config(root, {'fake = ["x"]': 'fake = ["x[:-1]"]'})
    kept = {one.path.name for one in scan(config.data).splits["train"] if one.label == 1}
    assert kept == {"000.png", "001.png", "002.png"}


def test_a_glob_takes_several_folders(root: Path) -> None:
    """A selector may name folders by a pattern."""
    config = tiny_config(root, {'fake = ["x"]': 'fake = ["[x]"]'}).data
    with pytest.raises(DataError, match="is no folder, glob"):
        scan(config)
    config = tiny_config(root, {'fake = ["x"]': 'fake = ["?"]', 'fake = ["y"]': "fake = []"}).data
    with pytest.raises(DataError, match="leak"):
        scan(config)


def test_excluded_files_are_in_no_split(root: Path) -> None:
    """A file that matches ``exclude`` is not read."""
    config = tiny_config(root).data.model_copy(update={"exclude": ("fake/x/00[12].png",)})
    kept = {one.path.name for one in scan(config).splits["train"] if one.label == 1}
    assert kept == {"000.png", "003.png"}


def test_the_same_bytes_in_two_splits_are_a_leak(root: Path) -> None:
    """A copy under another name is found by its content, and both files are named."""
    shutil.copy(root / "real/a/000.png", root / "real/b/copy.png")
    with pytest.raises(DataError, match=r"leak: real/b/copy\.png .* real/a/000\.png \(train\)"):
        scan(tiny_config(root).data)


def test_a_duplicate_within_a_split_is_used_once(root: Path) -> None:
    """Twice the same picture in training counts once, and the count is told."""
    shutil.copy(root / "real/a/000.png", root / "real/a/copy.png")
    dataset = scan(tiny_config(root).data)
    assert dataset.duplicates == 1
    assert sum(one.label == 0 for one in dataset.splits["train"]) == 4


def test_a_regeneration_in_another_split_than_its_photograph_is_a_leak(root: Path) -> None:
    """A root that is a set of pairs says what was drawn from what."""
    photograph = hashlib.sha256((root / "real/a/000.png").read_bytes()).hexdigest()
    line = {
        "photograph": "real/a/000.png",
        "sha256": photograph,
        "real": "real/b/001.png",
        "fake": {"y": "fake/y/002.png"},
    }
    (root / "pairs.jsonl").write_text(json.dumps(line))
    with pytest.raises(DataError, match=r"leak: 1 of \d+ photographs .*train 1, validation 2"):
        scan(tiny_config(root).data)
    allowed = tiny_config(root).data.model_copy(update={"allow_shared": ("repo", "prompt")})
    with pytest.raises(DataError, match="all its regenerations into one split"):
        scan(allowed)


def test_an_empty_class_is_refused(root: Path) -> None:
    """Training without a fake picture says so."""
    for path in (root / "fake/x").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no fake image"):
        scan(tiny_config(root).data)


def test_a_missing_folder_is_named(root: Path) -> None:
    """A folder that no root holds is refused by name."""
    with pytest.raises(DataError, match=r"splits\.train\.fake: no folder 'nowhere'"):
        scan(tiny_config(root, {'fake = ["x"]': 'fake = ["nowhere"]'}).data)


def test_no_root_is_refused(root: Path) -> None:
    """Without data there is a hint at the option."""
    config = tiny_config(root).data.model_copy(update={"roots": ()})
    with pytest.raises(DataError, match="--data DIR"):
        scan(config)


def test_a_corrupt_image_is_named_and_skipped(root: Path) -> None:
    """A truncated picture is left out, the others are loaded."""
    path = root / "real/a/001.png"
    path.write_bytes(path.read_bytes()[:200])
    sources = scan(tiny_config(root).data).splits["train"]
    skipped: list[str] = []

    def on_skip(source: Source, error: ImageError) -> None:
        skipped.append(f"{source.key}: {error}")

    pictures = load(sources, strict=False, region_px=None, on_skip=on_skip)
    assert len(pictures) == len(sources) - 1
    assert len(skipped) == 1
    assert skipped[0].startswith("real/a/001.png: ")


def test_a_corrupt_image_stops_a_strict_run(root: Path) -> None:
    """With ``strict`` the first corrupt picture ends the run, by name."""
    (root / "real/a/001.png").write_text("not an image")
    sources = scan(tiny_config(root).data).splits["train"]
    with pytest.raises(DataError, match=r"real/a/001\.png"):
        load(sources, strict=True, region_px=None, on_skip=lambda _source, _error: None)


def test_the_digest_follows_the_data(root: Path) -> None:
    """The digest changes with any file's bytes and with nothing else."""
    config = tiny_config(root).data
    before = scan(config).digest
    assert scan(config).digest == before
    (root / "real/e/000.png").write_bytes((root / "real/e/000.png").read_bytes() + b"\0")
    assert scan(config).digest != before


def test_a_region_is_the_central_native_pixels(root: Path) -> None:
    """What is kept in memory is cut from the middle, not resized."""
    source = scan(tiny_config(root).data).splits["train"][0]
    whole, part = (
        load([source], strict=True, region_px=side_px, on_skip=lambda _source, _error: None)[0]
        for side_px in (None, 40)
    )
    assert whole.pixels_HWC.shape == (80, 96, 3)
    assert (part.pixels_HWC == whole.pixels_HWC[20:60, 28:68]).all()
