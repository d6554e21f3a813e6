"""The pace: what a run spends its time on."""

from collections.abc import Iterator

import pytest

from trainer.training.pace import Stopwatch, since


def ticks(*times_s: float) -> Iterator[float]:
    """A clock that was wound up."""
    return iter(times_s)


def test_the_parts_of_a_step_are_told_apart() -> None:
    """Shares are of all the time; images a second are of the time without validation."""
    clock = ticks(0, 0, 1, 1, 3, 3, 8, 8, 10, 10)
    watch = Stopwatch(lambda: next(clock))
    for part in ("data", "teacher", "student", "validation"):
        with watch.doing(part):
            watch.trained(4)
    pace = watch.total()
    assert (pace.data_s, pace.teacher_s, pace.student_s, pace.validation_s) == (1, 2, 5, 2)
    assert pace.images_per_s == pytest.approx(16 / 8)
    assert pace.share(pace.student_s) == pytest.approx(0.5)
    assert pace.as_json()["teacher_share"] == pytest.approx(0.2)
    assert "2.0 images/s (student 50%, teacher 20%, data 10%" in pace.in_words()


def test_a_stretch_is_the_difference_of_two_totals() -> None:
    """What was before it does not count."""
    clock = ticks(0, 0, 4, 4, 5, 6, 6)
    watch = Stopwatch(lambda: next(clock))
    with watch.doing("student"):
        watch.trained(8)
    before = watch.total()
    with watch.doing("student"):
        watch.trained(3)
    stretch = since(before, watch.total())
    assert (stretch.images, stretch.student_s, stretch.wall_s) == (3, 1, 2)


def test_a_part_that_fails_still_took_its_time() -> None:
    """An error inside leaves the sums right."""
    clock = ticks(0, 1, 4, 4)
    watch = Stopwatch(lambda: next(clock))
    with pytest.raises(ValueError, match="broken"), watch.doing("data"):
        raise ValueError("broken")
    assert watch.total().data_s == 3


def test_no_time_is_no_pace() -> None:
    """Nothing is divided by nothing."""
    watch = Stopwatch(lambda: 0.0)
    assert watch.total().images_per_s == 0
    assert watch.total().share(0) == 0
