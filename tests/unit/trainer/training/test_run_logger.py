"""What a run writes about itself, how it continues after a kill, and what it spends its time on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # ships no types
    EventAccumulator,
)

from trainer.evaluation.metrics import SplitResult
from trainer.training.losses import Loss
from trainer.training.run_logger import RunLogger, StepTimer, StepTimes

TIMES = StepTimes(80, 10.0, {"data": 1.0, "teacher": 2.0, "student": 5.0, "validation": 2.0})
REPORT = SplitResult((), {"native": 0.75, "aligned": 0.5}, {}, {})


@pytest.fixture
def logger(tmp_path: Path) -> RunLogger:
    """The logger of a new run."""
    return RunLogger(tmp_path, 0)


def lines(folder: Path) -> list[dict[str, object]]:
    """The lines of progress.jsonl."""
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def test_tensorboard_gets_every_figure(logger: RunLogger, tmp_path: Path) -> None:
    """Losses, learning rate, pace, validation: under their step."""
    logger.step(10, Loss(torch.tensor(1.5), 0.5, 0.9, 0.1), 0.001, TIMES)
    logger.validation(20, REPORT, 0.4, TIMES)
    logger.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = {tag: board.Scalars(tag)[0] for tag in board.Tags()["scalars"]}
    assert scalars["loss/noise"].value == pytest.approx(0.9)
    assert scalars["train/lr"].step == 10
    assert scalars["pace/images_per_s"].value == pytest.approx(10)
    assert scalars["pace/teacher_share"].value == pytest.approx(0.2)
    assert scalars["validation/auc_native"].value == pytest.approx(0.75)
    assert scalars["validation/explained_variance"].step == 20


def test_a_validation_is_a_line(logger: RunLogger, tmp_path: Path) -> None:
    """With the pace since the one before."""
    logger.validation(20, REPORT, None, TIMES)
    logger.close()
    (line,) = lines(tmp_path)
    assert (line["step"], line["explained_variance"]) == (20, None)
    assert line["auc"] == {"native": 0.75, "aligned": 0.5}
    assert line["pace"]["student_share"] == 0.5  # type: ignore[index]  # plain JSON


def test_a_resumed_run_forgets_what_it_does_again(logger: RunLogger, tmp_path: Path) -> None:
    """Lines after the checkpoint go, and one that the kill cut short."""
    for step in (10, 20, 30):
        logger.validation(step, REPORT, None, TIMES)
    logger.close()
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"step": 4')
    RunLogger(tmp_path, 20).close()
    assert [line["step"] for line in lines(tmp_path)] == [10, 20]


def ticks(*times_s: float) -> Iterator[float]:
    """A clock that was wound up."""
    return iter(times_s)


def test_the_parts_of_a_step_are_timed_apart() -> None:
    """Shares are of all the time; images a second are of the time without validation."""
    clock = ticks(0, 0, 1, 1, 3, 3, 8, 8, 10, 10)
    timer = StepTimer(lambda: next(clock))
    for part in ("data", "teacher", "student", "validation"):
        with timer.timed(part):
            timer.trained(4)
    times = timer.total()
    assert times.spent_s == {"data": 1, "teacher": 2, "student": 5, "validation": 2}
    assert times.images_per_s == pytest.approx(16 / 8)
    assert times.share("student") == pytest.approx(0.5)
    assert times.as_json()["teacher_share"] == pytest.approx(0.2)
    assert "2.0 images/s (student 50%, teacher 20%, data 10%" in str(times)


def test_a_stretch_is_the_difference_of_two_totals() -> None:
    """What was before it does not count."""
    clock = ticks(0, 0, 4, 4, 5, 6, 6)
    timer = StepTimer(lambda: next(clock))
    with timer.timed("student"):
        timer.trained(8)
    before = timer.total()
    with timer.timed("student"):
        timer.trained(3)
    stretch = timer.total().since(before)
    assert (stretch.images, stretch.spent_s["student"], stretch.wall_s) == (3, 1, 2)


def test_a_part_that_fails_still_took_its_time() -> None:
    """An error inside leaves the sums right."""
    clock = ticks(0, 1, 4, 4)
    timer = StepTimer(lambda: next(clock))
    with pytest.raises(ValueError, match="broken"), timer.timed("data"):
        raise ValueError("broken")
    assert timer.total().spent_s["data"] == 3


def test_no_time_is_no_pace() -> None:
    """Nothing is divided by nothing."""
    times = StepTimer(lambda: 0.0).total()
    assert (times.images_per_s, times.share("data")) == (0, 0)
