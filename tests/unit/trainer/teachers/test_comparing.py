"""Teachers are compared on the same crops and the same noise."""

import json
from pathlib import Path

import pytest
import torch

from tests.support.trainer import TINY, write_tiny_data
from tests.unit.trainer.teachers import tiny_models
from trainer.cli import main
from trainer.config import TeacherConfig
from trainer.teachers.comparing import compare
from trainer.teachers.opening import open_teacher


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Two pixel-space teachers of two kinds."""
    return [
        str(tiny_models.pixel(tmp_path / "unet")),
        str(tiny_models.converted(tmp_path / "keras")),
    ]


def test_an_error_is_the_mean_over_a_photographs_crops(sources: list[str]) -> None:
    """Each crop has noise of its own, the same for every teacher, however they are batched."""
    x_NKCHW = torch.rand(9, 2, 3, 32, 32) * 2 - 1
    found = list(compare(sources, [0, 5], x_NKCHW, 32))
    assert [(one.source, one.index) for one in found] == [
        (source, index) for source in sources for index in (0, 5)
    ]
    last = found[-1]
    teacher = open_teacher(TeacherConfig(source=sources[1], timestep_index=5, tile_px=32))
    alone = [teacher.noise_error(x_NKCHW[8, k][None], [16 + k]) for k in range(2)]
    assert last.error_N.shape == (9,)
    assert last.error_N[8] == pytest.approx(float(torch.cat(alone).mean()), abs=1e-6)
    assert last.teacher_id == teacher.teacher_id.replace("/16", "/0")


def compared(tmp_path: Path, *more: str) -> int:
    """The command on tiny data."""
    config = tmp_path / "config.toml"
    config.write_text(TINY)
    data = write_tiny_data(tmp_path / "data", count=3)
    common = ["--config", str(config), "--data", str(data), "--output", str(tmp_path / "out")]
    return main(["teacher-compare", *common, *more], {})


def test_the_command_writes_what_it_shows(
    tmp_path: Path, sources: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each teacher and step, and the paired difference to the first teacher."""
    asked = ["--teacher", *sources, "--index", "0", "7", "--crops", "2"]
    assert compared(tmp_path, *asked) == 0
    content = json.loads((tmp_path / "out/teacher-compare.json").read_text())
    assert [one["index"] for one in content["rows"]] == [0, 7, 0, 7]
    first, _, second, _ = content["rows"]
    assert first["less_first"] == {"value": 0, "low": 0, "high": 0}
    less = second["error"]["value"] - first["error"]["value"]
    assert second["less_first"]["value"] == pytest.approx(less)
    assert second["error"]["low"] <= second["error"]["value"] <= second["error"]["high"]
    shown = capsys.readouterr().out
    assert f"{second['error']['value']:.3f}" in shown
    assert f"{less:+.3f}" in shown


def test_photographs_that_are_too_small_are_refused(
    tmp_path: Path, sources: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says what to do."""
    assert compared(tmp_path, "--teacher", sources[0], "--side-px", "512") == 1
    assert "512 px on both sides" in " ".join(capsys.readouterr().err.split())


def test_a_step_below_zero_is_a_wrong_argument(tmp_path: Path, sources: list[str]) -> None:
    """As argparse has it."""
    with pytest.raises(SystemExit, match="2"):
        compared(tmp_path, "--teacher", sources[0], "--index", "-1")
