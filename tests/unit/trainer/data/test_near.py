"""The same picture under other bytes is found across splits, and other pictures are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.trainer import tiny_config
from trainer.data.errors import DataError
from trainer.data.near import check_near, hashes_of, perceptual_hash
from trainer.data.sources import scan


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
