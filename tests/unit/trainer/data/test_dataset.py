"""The splits hold what the configuration says, and nothing leaks between them."""

import hashlib
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engines.preprocess import ImageError
from tests.support.trainer import tiny_config
from trainer.data.dataset import check_near, evenly, hashes_of, load, perceptual_hash, scan
from trainer.data.files import Source
from trainer.errors import ConfigError, DataError


def test_splits_hold_their_folders(root: Path) -> None:
    """Every split lists the files of its folders, with their class."""
    splits = scan(tiny_config(root).data).splits
    assert {one.key for one in splits["validation"]} == {
        f"{kind}/{index:03}.png" for kind in ("real/b", "fake/y") for index in range(4)
    }
    assert [one.label for one in splits["threshold"]] == [0] * 4


def test_a_glob_takes_several_folders(root: Path) -> None:
    """A folder that two splits name is a leak, whether a glob or a name matches it."""
    changes = {'fake = ["x"]': 'fake = ["[xz]"]', 'fake = ["z"]': "fake = []"}
    assert scan(tiny_config(root, changes).data).folders("train", 1) == ("x", "z")
    with pytest.raises(DataError, match=r"leak: fake/y is in the splits train and validation"):
        scan(tiny_config(root, {'fake = ["x"]': 'fake = ["?"]'}).data)


@pytest.mark.parametrize("selector", ["x[:-1]", "x@prompt=0-1/3", "repo:one/*"])
def test_a_part_of_a_folder_is_refused(root: Path, selector: str) -> None:
    """The message says what has replaced it."""
    with pytest.raises(ConfigError, match=r"splits\.train\.fake.*removed.*data\.manifest"):
        tiny_config(root, {'fake = ["x"]': f'fake = ["{selector}"]'})


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
    """Training without a generated picture says so, whether no folder is named or one without files."""
    with pytest.raises(DataError, match="no fake image: name a folder"):
        scan(tiny_config(root, {'fake = ["x"]': "fake = []"}).data)
    for path in (root / "fake/x").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no images in a folder 'x'; it has some in: w, y, z"):
        scan(tiny_config(root).data)


def test_a_missing_folder_is_named(root: Path) -> None:
    """A folder that no root holds is refused by name."""
    with pytest.raises(
        DataError, match=r"splits\.train\.fake: data.roots has no images in a folder 'nowhere'"
    ):
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


def scene(seed: int) -> Image.Image:
    """Soft random shapes, 240 x 200 px: as different from each other as photographs are."""
    small_HWC = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(small_HWC).resize((240, 200), Image.Resampling.BICUBIC)


@pytest.fixture
def scenes(root: Path) -> Path:
    """The root with a different scene in every file."""
    for seed, path in enumerate(sorted(root.glob("*/*/*.png"))):
        scene(seed).save(path)
    return root


def test_a_hash_outlives_what_happens_to_files() -> None:
    """Re-encoded, at half the size, a little darker: at most two bits of 63 change."""
    for seed in range(10):
        image = scene(seed)
        own = perceptual_hash(np.asarray(image))
        assert own is not None
        darker = Image.fromarray((np.asarray(image) * 0.9).astype(np.uint8))
        for other in (image.resize((120, 100)), darker):
            changed = perceptual_hash(np.asarray(other))
            assert changed is not None
            assert (own ^ changed).bit_count() <= 2


def test_a_flat_picture_has_no_hash() -> None:
    """Its bits would be those of noise, and every blank page the same."""
    assert perceptual_hash(np.full((64, 64, 3), 250, dtype=np.uint8)) is None


def test_different_pictures_are_no_duplicates(scenes: Path, tmp_path: Path) -> None:
    """Nothing is said of them, and a strict run goes on."""
    assert check_near(scan(tiny_config(scenes).data), tmp_path, strict=True) == []


def test_a_re_encoded_copy_in_another_split_is_named(scenes: Path, tmp_path: Path) -> None:
    """With the count; a strict run stops, and within a split nobody minds."""
    with Image.open(scenes / "real/a/000.png") as image:
        image.resize((200, 166)).save(scenes / "real/b/copy.jpg", quality=80)
        image.resize((200, 166)).save(scenes / "real/a/copy.jpg", quality=70)
    dataset = scan(tiny_config(scenes).data)
    [line] = check_near(dataset, tmp_path, strict=False)
    assert line.startswith("2 near duplicates across splits: real/a/")
    assert "real/a/000.png (train) and real/b/copy.jpg (validation)" in line
    with pytest.raises(DataError, match=r"2 near duplicates.*exclude one of each"):
        check_near(dataset, tmp_path, strict=True)


def test_hashes_are_computed_once(scenes: Path, tmp_path: Path) -> None:
    """By the file's digest; a corrupt file has none."""
    (scenes / "real/a/000.png").write_bytes(b"no image")
    sources = scan(tiny_config(scenes).data).splits["train"]
    first = hashes_of(sources, tmp_path)
    assert len(first) == 7
    assert hashes_of(sources[:2], tmp_path).items() <= first.items()
    for path in (scenes / "real/a").iterdir():
        path.unlink()
    assert hashes_of(sources, tmp_path) == first


@given(st.integers(0, 50), st.integers(1, 60))
def test_distances_differ_by_one_at_most(size: int, count: int) -> None:
    """From the first on, to the end, none twice, in order; all of them where there are no more."""
    chosen = evenly(range(size), count)
    assert len(chosen) == min(size, count)
    assert chosen[:1] == list(range(size))[:1]
    gaps = {after - before for before, after in pairwise([*chosen, size])}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)
