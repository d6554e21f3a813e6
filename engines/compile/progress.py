"""What a builder does, as it tells its progress monitor, for whoever watches.

In: the library's calls, from any of its threads. Out: calls of a ``Watcher``. No errors: an
exception must not pass through the library, which would end the process.
"""

import threading
from types import ModuleType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn


class Watcher(Protocol):
    """Sees the phases of one build; phases lie within phases."""

    def began(self, phase: str, within: str | None, steps: int) -> None:
        """A phase of so many steps; ``within`` is None for the whole build."""
        ...

    def stepped(self, phase: str, step: int) -> None:
        """Step ``step`` of the phase, counted from 0, is done."""
        ...

    def ended(self, phase: str) -> None:
        """The phase is over."""
        ...


class Interrupt:
    """Whether the person wants to stop; the builder is asked to at its next step."""

    def __init__(self) -> None:
        self.wanted = False


def make_monitor(api: ModuleType, watcher: Watcher, interrupt: Interrupt) -> object:
    """The library's progress monitor; Ctrl-C while it speaks ends the build at its next step."""
    base: Any = api.IProgressMonitor

    class _Monitor(base):  # type: ignore[misc]  # the library's classes are untyped
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 asks for this very call

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            try:
                watcher.began(phase_name, parent_phase, num_steps)
            except KeyboardInterrupt:
                interrupt.wanted = True

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                watcher.stepped(phase_name, step)
            except KeyboardInterrupt:
                interrupt.wanted = True
            return not interrupt.wanted

        def phase_finish(self, phase_name: str) -> None:
            try:
                watcher.ended(phase_name)
            except KeyboardInterrupt:
                interrupt.wanted = True

    return _Monitor()


class ConsoleWatcher:
    """A bar for each phase that is under way; in a file, nothing: the command says what was built."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._depths: dict[str, int] = {}
        self._lock = threading.Lock()

    def began(self, phase: str, within: str | None, steps: int) -> None:
        """Show the phase below the one that it lies within."""
        with self._lock:
            if not self._tasks:
                self._bars.start()
            depth = self._depths.get(within, -1) + 1 if within else 0
            self._depths[phase] = depth
            self._tasks[phase] = self._bars.add_task(f"{'  ' * depth}{phase}", total=steps)
            self._bars.refresh()  # a phase may be over before the bars are drawn again

    def stepped(self, phase: str, step: int) -> None:
        """Move the phase's bar on."""
        with self._lock:
            if phase in self._tasks:
                self._bars.update(self._tasks[phase], completed=step + 1)

    def ended(self, phase: str) -> None:
        """Take the phase's bar away."""
        with self._lock:
            task = self._tasks.pop(phase, None)
            if task is not None:
                self._bars.remove_task(task)
            if not self._tasks:
                self._bars.stop()
