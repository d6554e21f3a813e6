"""A manifest is a CSV file that a person can edit, and its split column divides the data set."""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engines.preprocess import ImageError
from tests.support.trainer import tiny_config
from trainer.config import DataConfig
from trainer.data.dataset import scan
from trainer.data.files import Source, list_roots
from trainer.data.manifest import (
    SHARES,
    ManifestRow,
    assign_last,
    deal,
    describe,
    jpeg_quality,
    read_manifest,
    read_origins,
    write_manifest,
)
from trainer.errors import DataError


def never(file: Source, error: ImageError) -> None:
    """No file may be skipped."""
    pytest.fail(f"{file.key}: {error}")


def rows_of(root: Path, *prompts: str) -> list[ManifestRow]:
    """The rows of a root."""
    patterns = [re.compile(prompt) for prompt in prompts]
    return describe(list_roots([root]), read_origins([root]), patterns, never)


def write_origins(root: Path, **known: dict[str, str]) -> None:
    """Write ``sources.jsonl``: for each folder (``fake_x``), what is known of all its files."""
    lines = []
    for name, fields in known.items():
        for path in sorted((root / name.replace("_", "/")).iterdir()):
            file = path.relative_to(root).as_posix()
            filled = {key: value.format(stem=path.stem) for key, value in fields.items()}
            lines.append(json.dumps({"file": file, **filled}))
    (root / "sources.jsonl").write_text("\n".join(lines))


def with_manifest(root: Path, rows: Sequence[ManifestRow], *, folders: bool = False) -> DataConfig:
    """The tiny data read through a manifest; with ``folders``, beside the folders of the splits."""
    path = root.parent / "manifest.csv"
    write_manifest(path, rows)
    config = tiny_config(root).data.model_copy(update={"manifest": path})
    return config if folders else DataConfig(roots=config.roots, manifest=path)


def divided(rows: Sequence[ManifestRow]) -> list[ManifestRow]:
    """Rows with the splits of the tiny configuration's folders."""
    names = ("train", "validation", "calibration", "threshold", "test")
    split_of = dict(zip("abcde", names, strict=True))
    split_of |= {"x": "train", "y": "validation", "z": "calibration", "w": "test"}
    return [row.model_copy(update={"split": split_of[row.source]}) for row in rows]


def test_a_row_describes_a_file(root: Path) -> None:
    """Digest, size, coding, and what ``sources.jsonl`` says of it."""
    (root / "fake/x/000.png").unlink()
    Image.new("RGB", (90, 70), "red").save(root / "fake/x/a.b.jpg", quality=83)
    write_origins(root, fake_x={"repo": "someone/something", "prompt": "number {stem}"})
    rows = {row.path: row for row in rows_of(root)}
    data = (root / "fake/x/a.b.jpg").read_bytes()
    assert len(rows) == 9 * 4
    assert rows["fake/x/a.b.jpg"].model_dump() == {
        "path": "fake/x/a.b.jpg",
        "label": "fake",
        "source": "x",
        "split": "",
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "width": 90,
        "height": 70,
        "format": "image/jpeg",
        "jpeg_quality": 83,
        "repo": "someone/something",
        "prompt": "number a.b",
    }
    assert (rows["real/a/000.png"].repo, rows["real/a/000.png"].jpeg_quality) == ("", None)


def test_a_manifest_is_read_as_it_was_written(root: Path, tmp_path: Path) -> None:
    """Rows come back equal, whatever their prompts hold."""
    prompts = {"repo": "a/b", "prompt": 'a "cat", 3\nlines, é {stem}'}
    write_origins(root, fake_x=prompts)
    write_manifest(tmp_path / "m.csv", rows_of(root))
    assert list(read_manifest(tmp_path / "m.csv").values()) == rows_of(root)


def test_a_person_can_edit_it(root: Path, tmp_path: Path) -> None:
    """Path and split suffice, a spreadsheet's byte order mark is no obstacle, and own columns stay."""
    path = tmp_path / "m.csv"
    path.write_text("\ufeffpath,split,remark\nreal/a/000.png,train,mine\nfake/x/000.png,,\n")
    rows = read_manifest(path)
    assert rows["real/a/000.png"].split == "train"
    assert rows["fake/x/000.png"].split == ""
    write_manifest(path, rows.values())
    with path.open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [row["remark"] for row in cells] == ["mine", ""]
    assert [row["source"] for row in cells] == ["a", "x"]


@pytest.mark.parametrize("quality", [10, 50, 75, 96, 100])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(quality: int) -> None:
    """For libjpeg's own files it is exact."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
    assert jpeg_quality(buffer.getvalue()) == quality


def test_a_corrupt_file_is_in_no_manifest(root: Path) -> None:
    """It is named."""
    (root / "real/a/001.png").write_bytes(b"no image")
    skipped: list[str] = []
    rows = describe(list_roots([root]), {}, [], lambda file, _error: skipped.append(file.key))
    assert skipped == ["real/a/001.png"]
    assert "real/a/001.png" not in {row.path for row in rows}


def test_a_manifest_alone_divides_the_data(root: Path) -> None:
    """Without folders in the configuration; the digest is theirs, and a later file is not seen."""
    config = with_manifest(root, divided(rows_of(root)))
    before = scan(config).digest
    assert before == scan(tiny_config(root).data).digest
    Image.new("RGB", (64, 64), "blue").save(root / "real/a/new.png")
    assert scan(config).digest == before
    assert scan(tiny_config(root).data).digest != before


def test_a_row_has_precedence_over_the_folder(root: Path) -> None:
    """The files that a manifest lists have its split, or none; the others have their folder's."""
    rows = [
        ManifestRow(path="fake/x/002.png", split="test"),
        ManifestRow(path="fake/x/003.png"),
    ]
    splits = scan(with_manifest(root, rows, folders=True)).splits
    trained_on = [file.key for file in splits["train"] if file.label == 1]
    assert trained_on == ["fake/x/000.png", "fake/x/001.png"]
    assert "fake/x/002.png" in {file.key for file in splits["test"]}
    assert not any(file.name == "003.png" and file.folder == "x" for file in splits["test"])


def test_a_generator_is_held_out_whole(root: Path) -> None:
    """Whatever its folder or its rows say; an unknown one is refused."""
    rows = [ManifestRow(path="fake/x/002.png", split="validation")]
    config = with_manifest(
        root, [*rows, ManifestRow(path="fake/y/000.png", split="train")], folders=True
    )
    held_out = config.model_copy(update={"hold_out": ("x",)})
    dataset = scan(held_out)
    assert dataset.folders("train", 1) == ("y",)
    assert dataset.folders("test", 1) == ("w", "x")
    assert sum(file.folder == "x" for file in dataset.splits["test"]) == 4
    with pytest.raises(
        DataError, match=r"data\.hold_out: .* no images in a folder 'n'; it has some in: w, x, y, z"
    ):
        scan(config.model_copy(update={"hold_out": ("n",)}))


def test_a_changed_file_is_refused(root: Path) -> None:
    """By name, with what to do."""
    config = with_manifest(root, divided(rows_of(root)))
    path = root / "fake/y/002.png"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"fake/y/002\.png has changed since .*: restore it, or"):
        scan(config)


def test_a_missing_file_is_refused(root: Path) -> None:
    """With the count, and the first of them."""
    config = with_manifest(root, divided(rows_of(root)))
    for name in ("000", "003"):
        (root / f"fake/y/{name}.png").unlink()
    with pytest.raises(DataError, match=r"2 files of .* are in no root, the first is fake/y/000"):
        scan(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,split\n", "has no rows"),
        ("file,split\nreal/a/0.png,train\n", r"line 2: path: .*data manifest"),
        ("path,split\nreal/a/0.png,training\n", r"line 2: split: Input should be .*'train'"),
        ("path,label\nreal/a/0.png,fake\n", "label and source say fake/a, but the path is"),
        ("path\nreal/a/0.png\nreal/a/0.png\n", "line 3: real/a/0.png has two rows"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """With the line, and what to do."""
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_manifest(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_manifest(tmp_path / "none.csv")


def test_one_path_in_two_roots_has_no_manifest(root: Path) -> None:
    """Which of the two is meant would depend on the order."""
    with pytest.raises(DataError, match="is in two roots"):
        describe(list_roots([root, root]), {}, [], never)


def test_a_repository_in_two_splits_is_a_leak(root: Path) -> None:
    """Unless the configuration permits it; then it is reported."""
    write_origins(root, fake_x={"repo": "one/site"}, fake_y={"repo": "one/site"})
    config = with_manifest(root, divided(rows_of(root)))
    with pytest.raises(
        DataError, match=r"one/site \(train 4, validation 4\).*allow_shared = \[\"rep"
    ):
        scan(config)
    allowed = config.model_copy(update={"allow_shared": ("repo",)})
    assert scan(allowed).notes == (
        "allowed: 1 of 1 repos are in several splits: one/site (train 4, validation 4)",
    )


def test_a_prompt_in_two_splits_is_a_leak(root: Path) -> None:
    """Permission for repositories is none for prompts."""
    known = {"repo": "one/site", "path": "saved/{stem}.jpg"}
    write_origins(root, fake_x=known, fake_y=known)
    rows = divided(rows_of(root, r"saved/(?P<prompt>\d+)\.jpg"))
    allowed = with_manifest(root, rows).model_copy(update={"allow_shared": ("repo",)})
    with pytest.raises(DataError, match="leak: 4 of 4 prompts are in several splits: 000"):
        scan(allowed)


def generated(count: int, **prompts: str) -> list[ManifestRow]:
    """Rows of two generators; ``prompts`` are format strings of the number, by folder."""
    return [
        ManifestRow(path=f"fake/{name}/{at:03}.png", prompt=prompts.get(name, "").format(at))
        for name in ("x", "y")
        for at in range(count)
    ]


def test_dealing_keeps_the_shares_in_every_folder() -> None:
    """And gives the same each time; rows that have a split keep it."""
    rows = generated(50)
    rows[0] = rows[0].model_copy(update={"split": "threshold"})
    dealt = deal(rows)
    assert dealt == deal(rows)
    assert dealt[0].split == "threshold"
    for name in ("x", "y"):
        counts = Counter(str(row.split) for row in dealt if row.source == name)
        for split, share in SHARES["fake"].items():
            assert abs(counts[split] - share / 2) <= 2, (name, counts)


def test_185_photographs_are_enough_for_thresholds_at_5_percent() -> None:
    """The default shares: 60 of them set the thresholds."""
    rows = deal([ManifestRow(path=f"real/a/{at}.jpg") for at in range(185)])
    assert sum(row.split == "threshold" for row in rows) >= 60


@given(st.integers(1, 40), st.sampled_from(["train=1", "train=3 test=1", "test=1 validation=1"]))
def test_dealing_never_divides_a_prompt(count: int, shares: str) -> None:
    """Two generators that drew the same prompts share none across splits."""
    given = {name: float(share) for name, share in (part.split("=") for part in shares.split())}
    dealt = deal(generated(count, x="p{}", y="p{}"), shares=given)
    by_prompt = {row.prompt: row.split for row in dealt}
    assert all(by_prompt[row.prompt] == row.split for row in dealt)
    assert {row.split for row in dealt} <= given.keys()


def test_the_last_files_of_a_folder_are_moved() -> None:
    """By name, in the folders of the pattern alone; to no split, too."""
    rows = deal(generated(5), shares={"train": 1})
    moved = assign_last(assign_last(rows, "fake/x/*", 2, "test"), "fake/y/*", 1, "")
    assert [row.split for row in moved] == ["train"] * 3 + ["test"] * 2 + ["train"] * 4 + [""]
