"""Graphs that take turns: more work takes longer, and every turn has a time of each."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.deep_model import deep_model
from trainer.commands.crops import Load, in_turns

ROUNDS = 15


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A graph of crops of 32 px."""
    path = tmp_path / "deep.onnx"
    path.write_bytes(deep_model(np.random.default_rng(0)))
    return path


def test_many_crops_take_longer_than_one(path: Path) -> None:
    """By far more than a busy machine could hide; the first calls, which warm up, are not counted."""
    found = in_turns({"one": Load(path, 32), "many": Load(path, 32, crops=64)}, ROUNDS)
    assert {name: value.shape for name, value in found.items()} == {
        "one": (ROUNDS,),
        "many": (ROUNDS,),
    }
    assert np.median(found["many"] / found["one"]) > 4
