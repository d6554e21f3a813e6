"""What a run leaves to look at, and how it goes on after a kill."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # ships no types
    EventAccumulator,
)

from trainer.evaluation.families import Report
from trainer.training.journal import Journal
from trainer.training.losses import Loss
from trainer.training.pace import Pace

PACE = Pace(images=80, wall_s=10.0, data_s=1.0, teacher_s=2.0, student_s=5.0, validation_s=2.0)
REPORT = Report((), {"native": 0.75, "aligned": 0.5}, {}, {})


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal of a new run."""
    return Journal(tmp_path, 0)


def lines(folder: Path) -> list[dict[str, object]]:
    """The lines of progress.jsonl."""
    return [json.loads(one) for one in (folder / "progress.jsonl").read_text().splitlines()]


def test_tensorboard_gets_every_figure(journal: Journal, tmp_path: Path) -> None:
    """Losses, learning rate, pace, validation: under their step."""
    journal.step(10, Loss(torch.tensor(1.5), 0.5, 0.9, 0.1), 0.001, PACE)
    journal.validation(20, REPORT, 0.4, PACE)
    journal.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = {tag: board.Scalars(tag)[0] for tag in board.Tags()["scalars"]}
    assert found["loss/noise"].value == pytest.approx(0.9)
    assert found["train/lr"].step == 10
    assert found["pace/images_per_s"].value == pytest.approx(10)
    assert found["pace/teacher_share"].value == pytest.approx(0.2)
    assert found["validation/auc_native"].value == pytest.approx(0.75)
    assert found["validation/explained_variance"].step == 20


def test_a_validation_is_a_line(journal: Journal, tmp_path: Path) -> None:
    """With the pace since the one before."""
    journal.validation(20, REPORT, None, PACE)
    journal.close()
    (line,) = lines(tmp_path)
    assert line["step"] == 20
    assert line["auc"] == {"native": 0.75, "aligned": 0.5}
    assert line["explained_variance"] is None
    assert line["pace"]["student_share"] == 0.5  # type: ignore[index]  # plain JSON


def test_a_resumed_run_forgets_what_it_does_again(journal: Journal, tmp_path: Path) -> None:
    """Lines after the checkpoint go, and one that the kill broke off."""
    for step in (10, 20, 30):
        journal.validation(step, REPORT, None, PACE)
    journal.close()
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"step": 4')
    Journal(tmp_path, 20).close()
    assert [one["step"] for one in lines(tmp_path)] == [10, 20]
