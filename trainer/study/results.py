"""results.jsonl: a line for every cell that came to an end.

In: a cell's end. Out: the same, after a restart. Errors: ``StudyError`` where another study works
on the folder. A line is on the disk before anything relies on it; one that was cut off by a
kill is passed over.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from trainer.config.base import Part
from trainer.config.study import Gate
from trainer.study.grid import Cell, StudyError

RESULTS = "results.jsonl"


class FamilyFigure(Part):
    """One family of the fold against the real images of the test split."""

    gate: Gate
    condition: Literal["native", "aligned"]
    family: str
    auc: float
    n_fake: int
    n_real: int


class Stamp(Part):
    """What a cell was made of; a cell of another stamp answers another question."""

    config_digest: str
    data_digest: str


class CellRecord(Part):
    """A line of results.jsonl."""

    row: str
    variant: str
    fold: tuple[str, ...]
    seed: int
    status: Literal["done", "failed"]
    stamp: Stamp
    code_commit: str
    processor: str = ""  # of the machine that finished it; rounding differs from one to another
    finished_at: str  # ISO 8601, UTC
    wall_s: float  # of the process that finished it
    error: str = ""
    learns_noise: bool = False  # whether the explained variance must reach the study's limit
    explained_variance: float | None = None
    validation_auc: float | None = None
    best_step: int | None = None
    images_per_s: float | None = None
    teacher_id: str = ""
    families: tuple[FamilyFigure, ...] = ()
    logits: str = ""  # an .npz below the study's folder

    @property
    def key(self) -> tuple[str, tuple[str, ...], int]:
        """As that of its ``Cell``."""
        return (self.variant, self.fold, self.seed)

    @property
    def name(self) -> str:
        """As that of its ``Cell``."""
        return Cell(self.row, self.variant, self.fold, self.seed).name


class Results:
    """The file, and what it says."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RESULTS
        self.unreadable = 0
        self._records: list[CellRecord] = []
        if self._path.exists():
            for line in self._path.read_bytes().splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            self._records.append(CellRecord.model_validate_json(line))
        except ValidationError:
            self.unreadable += 1

    def append(self, record: CellRecord) -> None:
        """Write one line and wait for the disk."""
        with self._path.open("a+b") as file:
            if file.tell() and not _ends_whole(self._path):
                file.write(b"\n")
            file.write(record.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._records.append(record)

    def latest(
        self, stamps: dict[tuple[str, tuple[str, ...], int], Stamp]
    ) -> dict[tuple[str, tuple[str, ...], int], CellRecord]:
        """The last record of each cell, if it has the stamp that the cell has now."""
        return {one.key: one for one in self._records if stamps.get(one.key) == one.stamp}

    def stale(self, stamps: dict[tuple[str, tuple[str, ...], int], Stamp]) -> int:
        """How many lines are of another configuration or other data than now."""
        found: Iterable[CellRecord] = self._records
        return sum(one.key in stamps and stamps[one.key] != one.stamp for one in found)


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StudyError(
                f"{path.parent} is being worked on by another study: wait for it, or name another "
                "--output"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")  # for a person who wonders who holds it
        file.flush()
        yield
