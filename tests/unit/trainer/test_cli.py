"""The commands: wrong use says what to do and never exits 0."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.trainer import TINY, write_tiny_data
from trainer.cli import COMMANDS, full_parser, main


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The tiny configuration as a file, its data beside it."""
    write_tiny_data(tmp_path / "data", count=4)
    rates = (
        "[export]\nreview_fpr = 0.8\nblock_fpr = 0.8\n"  # four photographs support no lower ones
    )
    (tmp_path / "tiny.toml").write_text(TINY.replace("[export]\n", rates))
    return tmp_path / "tiny.toml"


def run(config: Path, command: str, *more: str) -> int:
    """One command on the tiny data."""
    folder = config.parent
    options = ["--config", str(config), "--data", str(folder / "data")]
    options += ["--output", str(folder / "run"), "--cache", str(folder / "cache")]
    return main([command, *options, *more], {})


@pytest.mark.parametrize(
    ("command", "more", "message"),
    [
        ("train", ("--resume",), "train first"),
        ("evaluate", (), "train first"),
        ("calibrate", (), "train first"),
        ("export", ("--bundle", "unused"), "train first"),
    ],
)
def test_a_command_too_early_names_the_one_that_is_missing(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    more: tuple[str, ...],
    message: str,
) -> None:
    """Exit status 1, and the message on stderr."""
    assert run(config, command, *more) == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_wrong_configuration_exits_1(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The option is named."""
    config.write_text(TINY.replace("batch = 8", "batch = 7"))
    assert run(config, "train") == 1
    assert "train.batch" in capsys.readouterr().err


def test_strict_stops_at_a_corrupt_image(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is named."""
    (config.parent / "data/real/a/000.png").write_text("not an image")
    assert run(config, "train", "--strict") == 1
    assert "real/a/000.png" in capsys.readouterr().err


def test_a_teacher_that_cannot_be_converted_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty folder holds no model."""
    assert main(["teacher-convert", str(tmp_path), str(tmp_path / "out")], {}) == 1
    assert "model.json" in capsys.readouterr().err


def test_no_command_is_wrong_use() -> None:
    """Exit status 2, as everywhere."""
    with pytest.raises(SystemExit, match="2"):
        main([], {})


def test_the_overview_lists_every_command_and_loads_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``--help`` says what each is for; a parser of all exists for the documentation."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"], {}, "synthgate trainer")
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("usage: synthgate trainer")
    assert all(f"{name} {purpose}" in text for name, purpose in COMMANDS.items())
    full = full_parser().format_help()
    assert all(name in full.split() for name in COMMANDS)


_ROUNDS = """
import resource, sys
from trainer.cli import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
for _ in range(8):
    b"x" * (64 * 2**20)  # a block of its own, written to the last page, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def _faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _ROUNDS, how], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc")
def test_a_freed_block_is_used_again_without_the_kernel() -> None:
    assert _faults("kept") < _faults("left") / 3
