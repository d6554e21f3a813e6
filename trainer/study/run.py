"""Plans the cells of a study, runs those that are not done, keeps what came of each.

In: a study and where its files are. Out: results.jsonl and a folder for each cell. Errors:
``StudyError`` and those of the configuration and the data, before any cell runs; a cell's own
error is a line of results.jsonl, and the others go on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from engines.runtime.machine import processor_name
from trainer.config import Config
from trainer.config.study import StudyConfig
from trainer.study.adapter import LOGITS, Outcome, Task, data_digest
from trainer.study.grid import Cell, StudyError, cells, derive, digest, fold_name, learns_noise
from trainer.study.processes import Event, Failed, Finished, Runner
from trainer.study.results import CellRecord, Results, Stamp
from trainer.training.checkpoint import LAST
from trainer.training.setup import commit

CELLS = "cells"


@dataclass(frozen=True)
class Planned:
    """A cell, how to make it, and what it is made of."""

    cell: Cell
    task: Task
    stamp: Stamp


@dataclass(frozen=True)
class Plan:
    """The cells that can be made, and why others cannot."""

    planned: tuple[Planned, ...]
    refused: dict[Cell, str]

    def stamps(self) -> dict[tuple[str, tuple[str, ...], int], Stamp]:
        """The stamp of each cell, by its key."""
        return {one.cell.key: one.stamp for one in self.planned}

    def of(self, wanted: Sequence[Cell]) -> list[Planned]:
        """The planned of some cells; an error for one that cannot be made."""
        for cell in wanted:
            if cell in self.refused:
                raise StudyError(f"{cell.name}: {self.refused[cell]}")
        keys = {cell.key for cell in wanted}
        return [one for one in self.planned if one.cell.key in keys]


class Watcher(Protocol):
    """Who is told how the study goes."""

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...

    def planned(self, total: int, left: int) -> None:
        """Before the first cell."""
        ...

    def happened(self, event: Event) -> None:
        """After each event."""
        ...


def plan(
    study: StudyConfig, base: Config, environment: Mapping[str, str], output: Path, cache: Path
) -> Plan:
    """Every cell of every row; the data of each fold are read once, and checked."""
    planned, refused = list[Planned](), dict[Cell, str]()
    data: dict[tuple[str, ...], str] = {}
    for cell in cells(study):
        try:
            config = derive(base, study, cell, environment)
        except StudyError as error:
            refused[cell] = str(error)
            continue
        if cell.fold not in data:
            data[cell.fold] = data_digest(config)
        folder = output / CELLS / cell.variant / fold_name(cell.fold) / f"seed{cell.seed}"
        gates = study.variants[cell.variant].gates
        task = Task(cell.name, config, gates, folder, cache)
        planned.append(
            Planned(cell, task, Stamp(config_digest=digest(config), data_digest=data[cell.fold]))
        )
    return Plan(tuple(planned), refused)


def execute(
    wanted: Sequence[Planned],
    results: Results,
    runner: Runner,
    watcher: Watcher,
    *,
    retry_failed: bool,
) -> None:
    """Run what has no result yet; a line of results.jsonl for each cell that ends."""
    known = results.latest({one.cell.key: one.stamp for one in wanted})
    left = [
        one
        for one in wanted
        if one.cell.key not in known or (retry_failed and known[one.cell.key].status == "failed")
    ]
    by_name = {one.task.name: one for one in left}
    watcher.planned(len(wanted), len(left))
    _start_afresh_where_changed(left, watcher.note)
    started: dict[str, datetime] = {}
    for event in runner([one.task for one in left]):
        now = datetime.now(UTC)
        began = started.setdefault(event.task.name, now)
        if isinstance(event, Finished | Failed):
            one = by_name[event.task.name]
            results.append(_record(one, event, (now - began).total_seconds(), now))
            if isinstance(event, Finished):
                (one.task.folder / LAST).unlink(missing_ok=True)  # the largest file; best.pt stays
        watcher.happened(event)


def _record(
    planned: Planned, event: Finished | Failed, wall_s: float, finished_at: datetime
) -> CellRecord:
    cell, config = planned.cell, planned.task.config
    record = CellRecord(
        row=cell.row,
        variant=cell.variant,
        fold=cell.fold,
        seed=cell.seed,
        status="done" if isinstance(event, Finished) else "failed",
        stamp=planned.stamp,
        code_commit=commit(),
        processor=processor_name(),
        finished_at=finished_at.isoformat(timespec="seconds"),
        wall_s=wall_s,
        learns_noise=learns_noise(config),
    )
    if isinstance(event, Failed):
        return record.model_copy(update={"error": event.error})
    return record.model_copy(update=_figures(planned, event.outcome))


def _figures(planned: Planned, outcome: Outcome) -> dict[str, object]:
    folder = planned.task.folder
    output = folder.parents[3]  # output / cells / variant / fold / seed
    return {
        "explained_variance": outcome.explained_variance,
        "validation_auc": outcome.validation_auc,
        "best_step": outcome.best_step,
        "teacher_id": outcome.teacher_id,
        "images_per_s": outcome.images_per_s,
        "families": outcome.families,
        "wall_s": outcome.wall_s,
        "logits": str((folder / LOGITS).relative_to(output)),
    }


def _start_afresh_where_changed(left: Sequence[Planned], notify: Callable[[str], None]) -> None:
    """A checkpoint of another configuration cannot be gone on from: its cell starts again."""
    for one in left:
        mark = one.task.folder / "stamp.json"
        text = one.stamp.model_dump_json()
        if mark.exists() and mark.read_text() != text and (one.task.folder / LAST).exists():
            notify(f"{one.cell.name}: made of other choices or data before; it starts again")
            (one.task.folder / LAST).unlink()
        one.task.folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(text)
