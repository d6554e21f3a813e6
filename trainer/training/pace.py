"""How fast a run goes, and what it waits for.

In: seconds by part of a step. Out: ``Pace``. No errors. The clock is injected.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Doing = Literal["data", "teacher", "student", "validation"]


@dataclass(frozen=True)
class Pace:
    """A stretch of a run.

    Attributes:
        images: trained on, by this process and those beside it.
        wall_s: seconds of the stretch.
        data_s: waiting for a batch, which other threads make.
        teacher_s: for targets, computed or read.
        student_s: forward, backward and the update.
        validation_s: measuring on the validation split.
    """

    images: int
    wall_s: float
    data_s: float
    teacher_s: float
    student_s: float
    validation_s: float

    @property
    def images_per_s(self) -> float:
        """Training images a second; the time of validation is left out."""
        training_s = self.wall_s - self.validation_s
        return self.images / training_s if training_s > 0 else 0.0

    def share(self, seconds: float) -> float:
        """A part of the stretch, 0 to 1."""
        return seconds / self.wall_s if self.wall_s > 0 else 0.0

    def as_json(self) -> dict[str, float]:
        """Plain values, for a file."""
        return {
            "images": self.images,
            "wall_s": round(self.wall_s, 3),
            "images_per_s": round(self.images_per_s, 3),
            "data_share": round(self.share(self.data_s), 4),
            "teacher_share": round(self.share(self.teacher_s), 4),
            "student_share": round(self.share(self.student_s), 4),
            "validation_share": round(self.share(self.validation_s), 4),
        }

    def in_words(self) -> str:
        """For a person."""
        return (
            f"{self.images_per_s:.1f} images/s (student {self.share(self.student_s):.0%}, "
            f"teacher {self.share(self.teacher_s):.0%}, data {self.share(self.data_s):.0%}, "
            f"validation {self.share(self.validation_s):.0%})"
        )


class Stopwatch:
    """Sums up what a run spends its time on; ``since`` tells the stretches apart."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._started_s = clock, clock()
        self._images = 0
        self._spent_s: dict[Doing, float] = dict.fromkeys(
            ("data", "teacher", "student", "validation"), 0.0
        )

    @contextmanager
    def doing(self, part: Doing) -> Iterator[None]:
        """What happens inside counts as this part."""
        began_s = self._clock()
        try:
            yield
        finally:
            self._spent_s[part] += self._clock() - began_s

    def trained(self, images: int) -> None:
        """So many images more."""
        self._images += images

    def total(self) -> Pace:
        """Everything since the stopwatch was made."""
        return Pace(
            self._images,
            self._clock() - self._started_s,
            self._spent_s["data"],
            self._spent_s["teacher"],
            self._spent_s["student"],
            self._spent_s["validation"],
        )


def since(before: Pace, now: Pace) -> Pace:
    """The stretch between two totals."""
    return Pace(
        now.images - before.images,
        now.wall_s - before.wall_s,
        now.data_s - before.data_s,
        now.teacher_s - before.teacher_s,
        now.student_s - before.student_s,
        now.validation_s - before.validation_s,
    )
