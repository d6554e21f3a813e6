"""What judges a finished run may change; nothing that the run has seen is among it."""

import hashlib
from pathlib import Path

import pytest

from tests.support.trainer import tiny_config, write_tiny_data
from trainer.errors import DataError
from trainer.training.checkpoint import Best, load_run, save_best

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
    assert len(load_run(tmp_path, config).judging_data(config).splits["test"]) == 8
    seen = hashlib.sha256((root / "real" / "e" / "000.png").read_bytes()).hexdigest()
    save_best(tmp_path, BEST, config, LINEAGE | {"trained_on": seen})
    with pytest.raises(DataError, match=r"1 files of the test split trained .*real/e/000\.png"):
        load_run(tmp_path, config).judging_data(config)
