"""A study trains and evaluates its cells, survives a failing cell, and runs nothing twice."""

from pathlib import Path

import pytest

from tests.support.trainer import RATES, TINY, write_tiny_data
from trainer.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STUDY = """
base = "base.toml"
seeds = [5]
folds = [["x"]]
[variants.plain]
"loss.lambda_noise" = 0.0
"loss.lambda_glob" = 0.0
"detector.gate_drop_p" = 1.0
[variants.anl]
"train.min_explained_variance" = 0.0
[variants.hopeless]
"train.lr" = 1e30
[[rows]]
name = "claim"
question = "Does it help?"
baseline = "plain"
variants = ["anl"]
[[rows]]
name = "broken"
question = "Does a training that fails stop the others?"
baseline = "plain"
variants = ["hopeless"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, the base and the study."""
    folder = tmp_path_factory.mktemp("study")
    write_tiny_data(folder / "data")
    text = TINY.replace("[export]\n", RATES)
    for before, after in (('fake = ["x"]', 'fake = ["x", "y"]'), ('fake = ["y"]', 'fake = ["z"]')):
        assert before in text
        text = text.replace(before, after, 1)
    text = text.replace('[data.splits.calibration]\nreal = ["c"]\nfake = ["z"]', "")
    (folder / "base.toml").write_text(text)
    (folder / "study.toml").write_text(STUDY)
    return folder


def arguments(folder: Path, *more: str) -> list[str]:
    """The options of all runs."""
    paths = {"config": "study.toml", "data": "data", "output": "out", "cache": "cache"}
    options = [part for k, v in paths.items() for part in (f"--{k}", str(folder / v))]
    return ["study", *options, *more]


def test_a_study_runs_its_cells_once_and_reports_those_that_fail(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failing cell does not stop the others, and the command exits 1; what is done stays."""
    assert main(arguments(folder, "--jobs", "2"), {}) == 1
    assert "1 of 3 cells failed, the first is hopeless/x/seed5" in " ".join(
        capsys.readouterr().err.split()
    )
    out = folder / "out"
    report = (out / "report.md").read_text()
    assert "| claim | anl - plain | 1 of 1 |" in report
    assert "hopeless/x/seed5: failed: the loss is not finite" in report
    results = sorted(out.glob("cells/*/x/seed5/evaluate-test.json"))
    assert [path.parts[-4] for path in results] == ["anl", "plain"]
    assert not [path for path in out.rglob("last.pt") if path.parts[-4] != "hopeless"]
    before = [path.stat().st_mtime_ns for path in results]

    assert main(arguments(folder, "--rows", "claim"), {}) == 0
    assert "2 cells, 2 done before" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in results] == before
