"""Results are of certain files and certain crops; those of others are refused, and it is said what to run."""

from pathlib import Path

import pytest

from tests.support.trainer import tiny_config
from trainer.training.checkpoint import Best, CheckpointError, save_best
from trainer.training.measured_on import (
    files_of,
    refuse_other_files,
    refuse_other_scoring,
    scoring_of,
)

LINEAGE = {"code_commit": "c", "data_digest": "d", "teacher_id": "t"}
BEST = Best({}, 1, 0.5, None, None)


def test_results_name_the_files_that_they_were_measured_on(tmp_path: Path) -> None:
    """Older ones do not, and were measured on those of the training."""
    before = tiny_config(tmp_path)
    after = tiny_config(tmp_path, {'real = ["e"]': 'real = ["e", "f"]'})
    save_best(tmp_path, BEST, before, LINEAGE)
    path = tmp_path / "evaluate-test.json"
    for content in ({}, files_of(before, "test")):
        refuse_other_files(content, before, path, ("test",), "again")
        with pytest.raises(CheckpointError, match=r"names now \(test\): again"):
            refuse_other_files(content, after, path, ("test",), "again")
    refuse_other_files(files_of(after, "test"), after, path, ("test",), "again")


def test_results_name_the_crops_and_the_gate_that_they_were_measured_with(tmp_path: Path) -> None:
    """Older ones do not, and are taken for those of the training's crops."""
    before = tiny_config(tmp_path)
    five = {"crop_policy": "five_crop", "max_crops": 5}
    after = before.model_copy(update={"export": before.export.model_copy(update=five)})
    gated = before.model_copy(update={"export": before.export.model_copy(update={"gate": "on"})})
    save_best(tmp_path, BEST, before, LINEAGE)
    path = tmp_path / "calibrate.json"
    for content in ({}, scoring_of(before)):
        refuse_other_scoring(content, before, path, "again")
        with pytest.raises(CheckpointError, match=r"crop_policy center there, .*1 there\): again"):
            refuse_other_scoring(content, after, path, "again")
        with pytest.raises(CheckpointError, match=r"\(gate off there\): again"):
            refuse_other_scoring(content, gated, path, "again")
    refuse_other_scoring(scoring_of(after), after, path, "again")
