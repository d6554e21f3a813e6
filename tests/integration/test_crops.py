"""``crops``: ways to crop are compared by ranking and by time, on what judges nothing."""

import json
from pathlib import Path

import pytest

from tests.support.pairs import write_pairs
from tests.support.trainer import RATES, TINY, write_drawn, write_tiny_data
from trainer.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, with pairs of both splits and drawings among what judges."""
    folder = tmp_path_factory.mktemp("crops")
    write_drawn(write_tiny_data(folder / "data"), "drawn_a")
    fakes = write_pairs(folder / "data", folder / "fakes", "a", "b")
    text = TINY.replace("[export]\n", RATES).replace(
        "epochs = 3", "epochs = 10\npaired_share = 0.0"
    )
    text = text.replace("[evaluation]", '[evaluation]\nout_of_domain = ["drawn_*"]').replace(
        '["c"]', '["c", "drawn_a"]'
    )
    (folder / "tiny.toml").write_text(
        text.replace("[data.splits.train]", f'[data]\npairs = ["{fakes}"]\n[data.splits.train]')
    )
    assert main(["train", *options(folder)], {}) == 0
    return folder


def options(folder: Path) -> list[str]:
    """The options that all commands share."""
    names = {"config": "tiny.toml", "data": "data", "output": "run", "cache": "cache"}
    return [part for name, path in names.items() for part in (f"--{name}", str(folder / path))]


def test_the_configured_way_stands_first_and_what_is_too_slow_is_never_the_best(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it was asked for or not; figures and verdict are those of the file."""
    asked = ["grid:32:4", "center:64", "grid:64:64"]
    more = ["--split", "validation", "calibration", "--allowed-px", "192", "--rounds", "9"]
    assert main(["crops", *asked, *options(folder), *more], {}) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "48 pictures and 24 pairs of the validation and calibration split" in told
    assert "longer than allowed" in told  # 64 crops of 64 px for one of 192 px
    found = json.loads((folder / "run" / "crops.json").read_text())
    assert found["splits"] == ["validation", "calibration"]
    rows = {one["name"]: one for one in found["rows"]}
    assert list(rows) == ["center:64", "grid:32:4", "grid:64:64"]
    assert rows["center:64"]["auc"]["native"]["value"] > 0.75  # learnt in moments
    assert rows["center:64"]["less_first"]["native"] == {"value": 0, "low": 0, "high": 0}
    assert set(rows["center:64"]["auc"]) == {
        "native", "aligned", "pairs, native", "pairs, jpeg90",
    }  # fmt: skip
    assert rows["grid:64:64"]["time"]["p10"] <= rows["grid:64:64"]["time"]["median"]
    assert not rows["grid:64:64"]["fits"]
    assert rows["center:64"]["fits"]
    best = max((one for one in found["rows"] if one["fits"]), key=lambda one: one["figure"])
    verdict = (
        "none ranks better than center:64, the configured one"
        if best["name"] == "center:64"
        else f"{best['name']} ranks best"
    )
    assert f"of those within the time, {verdict}" in told


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["grid:64"], "unknown crops 'grid:64'"),
        (["center:64", "--split", "threshold"], "lacks real or generated pictures"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    folder: Path, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["crops", *arguments, *options(folder)], {}) == 1
    assert why in " ".join(capsys.readouterr().err.split())


def test_the_test_split_chooses_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["crops", "center:64", *options(folder), "--split", "test"], {})
    assert ended.value.code == 2
    assert "invalid choice: 'test'" in capsys.readouterr().err
