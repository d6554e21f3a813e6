"""What a reader of a study's plots is told beside the points."""

from pathlib import Path

import pytest

from trainer.evaluation.resampling import Interval
from trainer.study.analysis import Difference, Signs
from trainer.study.findings import Comparison, RowFindings
from trainer.study.plots import curve_plot


def _difference(value: float) -> Difference:
    near = Interval(value, value - 0.01, value + 0.01)
    return Difference({"x": near}, near, near, Signs(1, 0, 1.0), seeds=1)


def _comparison(step: float, pairs: int) -> Comparison:
    found = {"native": _difference(0.01)} if pairs else {}
    return Comparison(f"anl-t{step:g}", "plain", pairs, 15, step, found)


def _row(*comparisons: Comparison) -> RowFindings:
    return RowFindings(
        row="timestep",
        question="which t?",
        is_claim=False,
        curve="teacher.t",
        summaries=(),
        comparisons=comparisons,
    )


def test_a_curve_says_how_many_pairs_each_point_has(tmp_path: Path) -> None:
    row = _row(_comparison(50, 1), _comparison(0, 15), _comparison(200, 0))
    path = tmp_path / "curve.svg"  # matplotlib writes each text into it as a comment

    assert curve_plot(row, path)

    said = path.read_text()
    at = [said.index(f"<!-- {text} -->") for text in ("0", "15 of 15", "50", "1 of 15")]
    assert at == sorted(at)
    assert "0 of 15" not in said  # a step that has no pair is no point
    assert "how many pairs of runs are there" in said


@pytest.mark.parametrize("there", [0, 1])
def test_one_point_is_no_curve(there: int, tmp_path: Path) -> None:
    row = _row(*[_comparison(step, 3) for step in range(there)], _comparison(9, 0))

    assert not curve_plot(row, tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()
