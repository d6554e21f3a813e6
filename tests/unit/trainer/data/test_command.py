"""``data`` from the outside: what it writes, says, and ends with."""

import json
from pathlib import Path

import pytest

from tests.support.trainer import TINY, write_tiny_data
from trainer.cli import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with three pictures a folder, one of them corrupt."""
    root = write_tiny_data(tmp_path / "data", count=3)
    (root / "real/a/001.png").write_bytes(b"no image")
    lines = [
        json.dumps({"file": f"fake/x/00{at}.png", "repo": "r", "path": f"p{at}"}) for at in "01"
    ]
    (root / "sources.jsonl").write_text("\n".join(lines))
    return root


def output(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said, as one line."""
    both = capsys.readouterr()
    return " ".join((both.out + both.err).split())


def test_manifest_shards_and_check_work_together(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest of shards equals that of the folders, and a configuration reads through both."""
    monkeypatch.setenv("COLUMNS", "200")
    names = [tmp_path / "folders.csv", tmp_path / "shards.csv"]
    prompt = ["--prompt", r"p(?P<prompt>\d)"]
    shards = tmp_path / "shards"
    assert main(["data", "manifest", "--data", str(root), "-o", str(names[0]), *prompt], {}) == 0
    said = output(capsys)
    assert "skipped real/a/001.png" in said
    assert "26 files, 1 skipped; 1 repositories, 2 prompts of 2 files" in said
    assert main(["data", "shards", "--data", str(root), "-o", str(shards)], {}) == 0
    assert "27 files in 1 shards" in output(capsys)
    assert main(["data", "manifest", "--data", str(shards), "-o", str(names[1]), *prompt], {}) == 0
    assert names[0].read_text() == names[1].read_text()
    (tmp_path / "folders.toml").write_text(TINY)
    divided = ["--config", str(tmp_path / "folders.toml")]
    assert main(["data", "manifest", "--data", str(root), "-o", str(names[0]), *divided], {}) == 0
    capsys.readouterr()
    config = tmp_path / "config.toml"
    rates = (
        "[export]\nreview_fpr = 1.0\nblock_fpr = 1.0\n"  # three photographs support no lower ones
    )
    start, _, end = TINY.replace("[export]\n", rates).partition("[data.splits.train]")
    config.write_text(f'{start}[data]\nmanifest = "{names[0]}"\n{end[end.index("[teacher]") :]}')
    common = ["--config", str(config), "--cache", str(tmp_path / "cache")]
    digests = []
    for one in (root, shards):
        assert main(["data", "check", *common, "--data", str(one)], {}) == 0
        said = output(capsys)
        assert "2 real, 3 fake" in said
        digests.append(said.rsplit(" ", 1)[1])
    assert digests[0] == digests[1]


def test_strict_stops_at_a_corrupt_image(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name, with status 1, and nothing is written."""
    target = tmp_path / "m.csv"
    assert main(["data", "manifest", "--data", str(root), "-o", str(target), "--strict"], {}) == 1
    assert "real/a/001.png" in output(capsys)
    assert not target.exists()
    config = tmp_path / "config.toml"
    config.write_text(TINY)
    arguments = ["--config", str(config), "--data", str(root), "--cache", str(tmp_path), "--strict"]
    assert main(["data", "check", *arguments], {}) == 1
    assert "real/a/001.png" in output(capsys)


@pytest.mark.parametrize(
    ("prompt", "message"), [("(", "is not a regular expression"), ("x", "has no group")]
)
def test_a_pattern_without_a_prompt_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], prompt: str, message: str
) -> None:
    """Before anything is read."""
    arguments = ["--data", str(root), "-o", str(tmp_path / "m.csv"), "--prompt", prompt]
    assert main(["data", "manifest", *arguments], {}) == 1
    assert message in output(capsys)


@pytest.mark.parametrize("part", ["manifest", "shards"])
def test_a_folder_without_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    """The message says how a data set is laid out."""
    (tmp_path / "empty").mkdir()
    target = str(tmp_path / "out")
    assert main(["data", part, "--data", str(tmp_path / "empty"), "-o", target], {}) == 1
    assert "real/SOURCE/*" in output(capsys)
