"""What judges a finished run may change; nothing that the run has seen is among it."""

import hashlib
from pathlib import Path

import pytest

from tests.support.trainer import tiny_config, write_tiny_data
from trainer.commands.chosen import judging_data, named_files, refuse_other_files
from trainer.data.errors import DataError
from trainer.training.checkpoint import Best, CheckpointError, save_best

LINEAGE = {"code_commit": "c", "data_digest": "d", "teacher_id": "t"}
BEST = Best({}, 1, 0.5, None, None)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated data that all tests here read."""
    return write_tiny_data(tmp_path_factory.mktemp("chosen") / "data", count=4)


def test_what_an_earlier_run_of_the_line_saw_cannot_judge(root: Path, tmp_path: Path) -> None:
    """Its own splits are apart; a run that it started from had a photograph of its test split."""
    config = tiny_config(root)
    save_best(tmp_path, BEST, config, LINEAGE | {"trained_on": ""})
    assert len(judging_data(config, tmp_path).splits["test"]) == 8
    seen = hashlib.sha256((root / "real" / "e" / "000.png").read_bytes()).hexdigest()
    save_best(tmp_path, BEST, config, LINEAGE | {"trained_on": seen})
    with pytest.raises(DataError, match=r"1 files of the test split trained .*real/e/000\.png"):
        judging_data(config, tmp_path)


def test_results_name_the_files_that_they_were_measured_on(root: Path, tmp_path: Path) -> None:
    """Older ones do not, and were measured on those of the training."""
    before = tiny_config(root)
    after = tiny_config(root, {'real = ["e"]': 'real = ["e[:2]"]'})
    save_best(tmp_path, BEST, before, LINEAGE)
    path = tmp_path / "evaluate-test.json"
    for content in ({}, {"splits": named_files(before, "test")}):
        refuse_other_files(content, before, path, ("test",), "again")
        with pytest.raises(CheckpointError, match=r"names now \(test\): again"):
            refuse_other_files(content, after, path, ("test",), "again")
    refuse_other_files({"splits": named_files(after, "test")}, after, path, ("test",), "again")
