"""The run whose figures a bundle's card gives: they must be those of the bundle's crops."""

import json
from pathlib import Path

import pytest

from tests.support.trainer import tiny_config
from trainer.bundle.model_card import EVALUATION, read_development
from trainer.training.checkpoint import Best, CheckpointError, measured_with, save_best


def test_figures_of_other_crops_are_refused(tmp_path: Path) -> None:
    """Nine crops of a picture rank better than one: the card would promise too much."""
    config = tiny_config(tmp_path)
    save_best(
        tmp_path, Best({}, 1, 0.5, None, None), config,
        {"code_commit": "c", "data_digest": "d", "teacher_id": "t"},
    )  # fmt: skip
    nine = {"crop_policy": "grid", "max_crops": 9, "development": str(tmp_path)}
    asked = config.model_copy(update={"export": config.export.model_copy(update=nine)})
    (tmp_path / EVALUATION).write_text(json.dumps(measured_with(config, "test")))
    with pytest.raises(CheckpointError, match=r"max_crops was 1\): run python -m trainer evaluate"):
        read_development(asked)
