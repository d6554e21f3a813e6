"""A manifest holds a data set to what it was, and splits it by where the pictures are from."""

import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from engines.preprocess import ImageError
from tests.support.trainer import tiny_config
from trainer.config import DataConfig
from trainer.data.errors import DataError
from trainer.data.lines import write_lines
from trainer.data.listing import File, list_roots
from trainer.data.manifest import Row, describe, jpeg_quality, read_manifest, read_origins
from trainer.data.sources import scan


def never(file: File, error: ImageError) -> None:
    """No file may be skipped."""
    pytest.fail(f"{file.key}: {error}")


def rows(root: Path, *prompts: str) -> Sequence[Row]:
    """The rows of a root."""
    patterns = [re.compile(one) for one in prompts]
    return describe(list_roots([root]), read_origins([root]), patterns, never).rows


def origins(root: Path, **known: dict[str, str]) -> None:
    """Write a sidecar: of each folder (``fake_x``), what is known of all its files."""
    lines = []
    for name, fields in known.items():
        for path in sorted((root / name.replace("_", "/")).iterdir()):
            file = path.relative_to(root).as_posix()
            filled = {key: value.format(stem=path.stem) for key, value in fields.items()}
            lines.append(json.dumps({"file": file, **filled}))
    (root / "sources.jsonl").write_text("\n".join(lines))


def with_manifest(
    root: Path, changes: dict[str, str] | None = None, prompts: Sequence[str] = ()
) -> DataConfig:
    """The tiny data, read through a manifest of all of it."""
    path = root.parent / "manifest.jsonl"
    write_lines(path, rows(root, *prompts))
    return tiny_config(root, changes).data.model_copy(update={"manifest": path})


def test_a_row_says_what_a_file_is(root: Path) -> None:
    """Digest, size, coding, and what a sidecar knows of it."""
    (root / "fake/x/000.png").unlink()
    Image.new("RGB", (90, 70), "red").save(root / "fake/x/a.b.jpg", quality=83)
    origins(root, fake_x={"repo": "someone/something", "prompt": "number {stem}"})
    found = {one.path: one for one in rows(root)}
    data = (root / "fake/x/a.b.jpg").read_bytes()
    assert len(found) == 9 * 4
    assert found["fake/x/a.b.jpg"].model_dump(by_alias=True) == {
        "path": "fake/x/a.b.jpg",
        "class": "fake",
        "folder": "x",
        "repo": "someone/something",
        "prompt": "number a.b",
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "width_px": 90,
        "height_px": 70,
        "format": "image/jpeg",
        "jpeg_quality": 83,
    }
    assert (found["real/a/000.png"].repo, found["real/a/000.png"].jpeg_quality) == (None, None)


def test_a_manifest_is_read_as_it_was_written(root: Path, tmp_path: Path) -> None:
    """Rows come back equal; twice written, the file is the same."""
    write_lines(tmp_path / "m.jsonl", rows(root))
    assert list(read_manifest(tmp_path / "m.jsonl").values()) == list(rows(root))


@pytest.mark.parametrize("quality", [10, 50, 75, 96, 100])
def test_the_quality_of_a_jpeg_is_read_off_its_tables(quality: int) -> None:
    """Of libjpeg's own files it is exact."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
    assert jpeg_quality(buffer.getvalue()) == quality


def test_a_corrupt_file_is_in_no_manifest(root: Path) -> None:
    """It is named and counted."""
    (root / "real/a/001.png").write_bytes(b"no image")
    told: list[str] = []
    found = describe(list_roots([root]), {}, [], lambda file, _error: told.append(file.key))
    assert (told, found.skipped) == (["real/a/001.png"], 1)
    assert "real/a/001.png" not in {one.path for one in found.rows}


def test_with_a_manifest_nothing_else_is_read(root: Path) -> None:
    """The digest is that of the folders; a file that came later is not seen."""
    config = with_manifest(root)
    before = scan(config).digest
    assert before == scan(tiny_config(root).data).digest
    Image.new("RGB", (64, 64), "blue").save(root / "real/a/new.png")
    assert scan(config).digest == before
    assert scan(tiny_config(root).data).digest != before


def test_a_changed_file_is_refused(root: Path) -> None:
    """By name, with what to do."""
    config = with_manifest(root)
    path = root / "fake/y/002.png"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"fake/y/002\.png has changed since .*: restore it, or"):
        scan(config)


def test_a_missing_file_is_refused(root: Path) -> None:
    """With the count, and the first of them."""
    config = with_manifest(root)
    for name in ("000", "003"):
        (root / f"fake/y/{name}.png").unlink()
    with pytest.raises(DataError, match=r"2 files of .* are in no root, the first is fake/y/000"):
        scan(config)


def test_a_file_that_is_no_manifest_is_refused(root: Path, tmp_path: Path) -> None:
    """Nothing, other JSON, no JSON: each says which line, and what to do."""
    path = tmp_path / "m.jsonl"
    for text, message in (
        ("", "names no file"),
        ('{"a": 1}', r"line 1: path: Field required.*data manifest"),
        ("path,class", "line 1 is not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_manifest(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_manifest(tmp_path / "none.jsonl")


def test_one_path_in_two_roots_has_no_manifest(root: Path) -> None:
    """Which of the two is meant would depend on the order."""
    with pytest.raises(DataError, match="is in two roots"):
        describe(list_roots([root, root]), {}, [], never)


def test_a_repository_in_two_splits_is_a_leak(root: Path) -> None:
    """Unless the configuration says that it is meant; then it is reported."""
    origins(root, fake_x={"repo": "one/site"}, fake_y={"repo": "one/site"})
    config = with_manifest(root)
    with pytest.raises(
        DataError, match=r"one/site \(train 4, validation 4\).*allow_shared = \[\"rep"
    ):
        scan(config)
    allowed = config.model_copy(update={"allow_shared": ("repo",)})
    assert scan(allowed).notes == (
        "allowed: 1 of 1 repos are in several splits: one/site (train 4, validation 4)",
    )


def test_a_prompt_in_two_splits_is_a_leak(root: Path) -> None:
    """Two generators that drew the same: leave for repositories is none for prompts."""
    known = {"repo": "one/site", "path": "saved/{stem}.jpg"}
    origins(root, fake_x=known, fake_y=known)
    config = with_manifest(root, prompts=[r"saved/(?P<prompt>\d+)\.jpg"])
    allowed = config.model_copy(update={"allow_shared": ("repo",)})
    with pytest.raises(DataError, match="leak: 4 of 4 prompts are in several splits: 000"):
        scan(allowed)


def test_a_split_takes_whole_prompts(root: Path) -> None:
    """Dealt by ``@prompt``, two generators of the same prompts share none across splits."""
    origins(root, fake_x={"prompt": "p{stem}"}, fake_y={"prompt": "p{stem}"})
    changes = {
        'fake = ["x"]': 'fake = ["x@prompt=0-1/3", "y@prompt=0-1/3"]',
        'fake = ["y"]\n': 'fake = ["[x]@prompt=2/3"]\n',
    }
    changes['fake = ["y"]\n'] = 'fake = ["?@prompt=2/3"]\n'
    config = with_manifest(
        root, changes | {'fake = ["z"]': "fake = []", 'fake = ["w"]': "fake = []"}
    )
    (root / "fake/z").rename(root.parent / "z")
    (root / "fake/w").rename(root.parent / "w")
    write_lines(root.parent / "manifest.jsonl", rows(root))
    splits = scan(config).splits
    drawn = {
        name: {one.key[-7:] for one in splits[name] if one.label}
        for name in ("train", "validation")
    }
    assert drawn["train"]
    assert drawn["validation"]
    assert not drawn["train"] & drawn["validation"]
    assert len(drawn["train"] | drawn["validation"]) == 4


def test_a_split_takes_whole_repositories(root: Path) -> None:
    """``repo:`` names them, whatever their folder; one that there is not is refused."""
    origins(root, fake_x={"repo": "one/x"}, fake_y={"repo": "two/y"})
    config = with_manifest(root, {'fake = ["x"]': 'fake = ["repo:one/*"]'})
    assert {one.folder for one in scan(config).splits["train"] if one.label} == {"x"}
    with pytest.raises(DataError, match="no repository 'three/\\*'"):
        scan(with_manifest(root, {'fake = ["x"]': 'fake = ["repo:three/*"]'}))


def test_groups_need_a_manifest_that_knows_them(root: Path) -> None:
    """Without one, or where it names no prompt, the selector says so."""
    changes = {'fake = ["x"]': 'fake = ["x@prompt=0/2"]'}
    with pytest.raises(DataError, match=r"needs data\.manifest"):
        scan(tiny_config(root, changes).data)
    with pytest.raises(DataError, match=r"names no prompt of fake/x/000\.png"):
        scan(with_manifest(root, changes))
