"""Runs cells, some at a time, each in a process of its own.

In: tasks. Out: what happens to them, as events. No errors of its own: a cell that fails, or whose
process dies, is an event, and the others go on. Once ``until_s`` has passed, what is under way is
ended; each goes on from its checkpoint the next time.

A cell's process ends with the study's, however that ends: two processes never share a cell.
"""

import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Protocol

from trainer.errors import TrainerError
from trainer.memory import keep_memory
from trainer.study.adapter import Outcome, Task, run_task
from trainer.study.orphans import end_with_parent

_TELL_EVERY_S = 2.0
_TRACE = "error.txt"


@dataclass(frozen=True)
class Started:
    """A cell's process is under way."""

    task: Task


@dataclass(frozen=True)
class Stepped:
    """A cell has got so far."""

    task: Task
    step: int
    steps: int


@dataclass(frozen=True)
class Finished:
    """A cell is done."""

    task: Task
    outcome: Outcome


@dataclass(frozen=True)
class Failed:
    """A cell cannot be done, and why."""

    task: Task
    error: str


Event = Started | Stepped | Finished | Failed


class Runner(Protocol):
    """Runs tasks and tells what happens."""

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """The events of all tasks; stops early only where it was told to."""
        ...


@dataclass
class _Running:
    task: Task
    process: ForkServerProcess
    receiver: Connection


class ProcessRunner:
    """Cells in processes; the heavy imports are made once and shared."""

    def __init__(self, jobs: int, until_s: float | None = None) -> None:
        self._jobs, self._until_s = jobs, until_s
        self._context: ForkServerContext = get_context("forkserver")
        self._context.set_forkserver_preload([__name__])

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """As the protocol says."""
        waiting, running = list(tasks), list[_Running]()
        try:
            while (waiting or running) and not self._over():
                while waiting and len(running) < self._jobs:
                    running.append(self._start(waiting.pop(0)))
                    yield Started(running[-1].task)
                for one in self._ready(running):
                    event = _event(one)
                    if isinstance(event, Finished | Failed):
                        running.remove(one)
                        _end(one)
                    yield event
        finally:
            for one in running:
                _end(one)

    def _over(self) -> bool:
        return self._until_s is not None and time.monotonic() >= self._until_s

    def _ready(self, running: list[_Running]) -> list[_Running]:
        left_s = None if self._until_s is None else max(0.0, self._until_s - time.monotonic())
        ready = connection.wait([one.receiver for one in running], left_s)
        return [one for one in running if one.receiver in ready]

    def _start(self, task: Task) -> _Running:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_in_process, args=(task, sender), name=task.name)
        process.start()
        sender.close()  # the child's copy is the last: its end is the end of the pipe
        return _Running(task, process, receiver)


def _event(running: _Running) -> Event:
    try:
        said: tuple[int, int] | Outcome | str = running.receiver.recv()
    except EOFError:
        running.process.join()
        return Failed(
            running.task,
            f"its process ended with status {running.process.exitcode}: see cell.log of its folder "
            "(-9 is often a lack of memory: use fewer --jobs)",
        )
    if isinstance(said, Outcome):
        return Finished(running.task, said)
    if isinstance(said, str):
        return Failed(running.task, said)
    return Stepped(running.task, *said)


def _end(running: _Running) -> None:
    running.process.terminate()
    running.process.join()
    running.receiver.close()


def _in_process(task: Task, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study ends its cells itself
    end_with_parent()
    keep_memory()
    told_s = 0.0

    def on_step(step: int, steps: int) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= _TELL_EVERY_S:
            told_s = time.monotonic()
            sender.send((step, steps))

    try:
        sender.send(run_task(task, on_step))
    except TrainerError as error:
        sender.send(str(error))
    except Exception as error:  # noqa: BLE001  the edge of a cell: whatever it is, the others go on
        _write_trace(task.folder)  # before it is told: the study then ends this process
        sender.send(f"{type(error).__name__}: {error} (see {_TRACE} of the cell's folder)")


def _write_trace(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _TRACE).write_text(traceback.format_exc())
