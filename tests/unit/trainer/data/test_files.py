"""Shards are the folders in other files: the same sources, digests and batches."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset  # type: ignore[import-untyped]  # it ships no types
from PIL import Image

from tests.support.trainer import tiny_config
from trainer.data.batches import Batches
from trainer.data.dataset import Picture, load, scan
from trainer.data.files import list_roots, write_shards
from trainer.errors import DataError


@pytest.fixture
def shards(root: Path, tmp_path: Path) -> Path:
    """The root, packed into several shards; some names have dots, some differ in their ending."""
    (root / "real/a/000.png").rename(root / "real/a/one.two.three.PNG")
    Image.new("RGB", (70, 70), "red").save(root / "real/a/001.jpg")
    target = tmp_path / "shards"
    files = sorted(list_roots([root]), key=lambda file: file.key)
    count, written = write_shards(files, target, 200_000)
    assert (count, written) == (37, len(list(target.glob("*.tar"))))
    assert written > 2
    return target


def pictures(root: Path) -> list[Picture]:
    """Those that train."""
    sources = scan(tiny_config(root).data).splits["train"]
    return load(sources, strict=True, region_px=None, on_skip=lambda one, _: pytest.fail(one.key))


def test_folders_and_shards_are_the_same_data(root: Path, shards: Path) -> None:
    """The same keys, bytes and digest."""
    first, second = (scan(tiny_config(one).data) for one in (root, shards))
    assert first.digest == second.digest
    for split, sources in first.splits.items():
        others = second.splits[split]
        assert [one.key for one in sources] == [one.key for one in others]
        assert [one.read() for one in sources] == [one.read() for one in others]


def test_folders_and_shards_give_the_same_batches(root: Path, shards: Path) -> None:
    """Pixel for pixel."""
    first, second = (Batches(pictures(one), [], tiny_config(one)) for one in (root, shards))
    for step in range(3):
        assert np.array_equal(first.at(step).image_NHWC, second.at(step).image_NHWC)


def test_webdataset_reads_them(root: Path, shards: Path) -> None:
    """They are shards like any other: an image and a JSON a sample."""
    urls = sorted(str(one) for one in shards.glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == 37
    for sample in samples:
        note = json.loads(sample["json"])
        [data] = [value for key, value in sample.items() if key in {"png", "jpg"}]
        assert data == (root / note["class"] / note["folder"] / note["name"]).read_bytes()


def test_equal_files_make_equal_shards(root: Path, shards: Path, tmp_path: Path) -> None:
    """No time of writing is in them."""
    files = sorted(list_roots([root]), key=lambda file: file.key)
    write_shards(files, tmp_path / "again", 200_000)
    for path in shards.glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_folders_and_shards_may_stand_side_by_side(root: Path, shards: Path) -> None:
    """Several roots are one data set; what is in both is used once."""
    config = tiny_config(root).data.model_copy(update={"roots": (root, shards)})
    assert scan(config).digest == scan(tiny_config(root).data).digest


@pytest.mark.parametrize("cut_bytes", [10_000, 512, 1024 * 9])
def test_a_truncated_shard_is_refused(shards: Path, cut_bytes: int) -> None:
    """Wherever it was cut, it is named, with what to do."""
    path = shards / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-cut_bytes].rstrip(b"\0"))
    with pytest.raises(DataError, match=r"shard-000001\.tar is truncated .*copy it again"):
        scan(tiny_config(shards).data)


def test_a_shard_cut_between_two_members_is_refused(shards: Path) -> None:
    """The archive then reads well, but has no end."""
    path = shards / "shard-000000.tar"
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-2]
    path.write_bytes(path.read_bytes()[: last.offset])
    with pytest.raises(DataError, match=r"shard-000000\.tar is truncated"):
        scan(tiny_config(shards).data)


def test_altered_bytes_are_refused(shards: Path) -> None:
    """One byte of an image: its digest in the shard tells."""
    path = shards / "shard-000000.tar"
    with tarfile.open(path) as archive:
        image = next(one for one in archive.getmembers() if not one.name.endswith(".json"))
    data = bytearray(path.read_bytes())
    data[image.offset_data + image.size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"the bytes of .* have changed"):
        scan(tiny_config(shards).data)


def test_shards_of_something_else_are_refused(root: Path, tmp_path: Path) -> None:
    """Without class, folder, name and digest, or no tar at all."""
    other = tmp_path / "other"
    other.mkdir()
    with webdataset.TarWriter(str(other / "a.tar")) as writer:
        writer.write({"__key__": "1", "png": b"x", "json": {"caption": "a cat"}})
    with pytest.raises(DataError, match="lacks class, folder, name or sha256"):
        list_roots([other])
    (other / "a.tar").write_bytes(b"not a tar file" * 100)
    with pytest.raises(DataError, match="not a tar file"):
        list_roots([other])


def test_shards_are_never_written_over(root: Path, shards: Path) -> None:
    """An existing folder is refused."""
    with pytest.raises(DataError, match="exists: choose another directory"):
        write_shards(list_roots([root]), shards, 1)


def test_a_root_that_is_not_there_is_named(root: Path) -> None:
    """Instead of a folder that is missing in it."""
    with pytest.raises(DataError, match="nowhere is not a directory"):
        list_roots([root, root / "nowhere"])
