"""How far a long command is: a bar on a terminal, a line now and then where there is none.

In: steps. Out: text on the console. No errors. What a step means is for whoever holds the bar.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

_MINUTE_S = 60
_HOUR_MINUTES = 60


class ProgressBar:
    """One bar with a text beside it."""

    def __init__(self, console: Console, name: str, line_every_s: float = 30.0) -> None:
        """Prepare the bar.

        Args:
            console: where it is shown.
            name: what is under way.
            line_every_s: how often a line is due where there is no terminal.
        """
        self._console, self._name, self._line_every_s = console, name, line_every_s
        self._bar = Progress(
            TextColumn(name),
            BarColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._told_s = self._started_s = time.monotonic()
        self._first = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del kind, error, trace
        self._bar.stop()

    def begin(self, done: float, total: float) -> None:
        """Count from here: what was done before says nothing of how fast it goes."""
        self._task = self._bar.add_task(self._name, total=total, text="")
        self._bar.update(self._task, completed=done)
        self._started_s, self._first = time.monotonic(), done

    def show(self, done: float, total: float, text: str) -> None:
        """After a step; in a file, a line if one is due."""
        if self._task is None:
            self.begin(done, total)
        line = f"{text}{self._left(done, total)}"
        if self._task is not None:
            self._bar.update(self._task, completed=done, text=line)
        if not self._console.is_terminal and time.monotonic() - self._told_s >= self._line_every_s:
            self._told_s = time.monotonic()
            self.note(line)

    def note(self, text: str) -> None:
        """A line of its own."""
        self._console.print(escape(text), highlight=False)

    def warn(self, heading: str, text: str) -> None:
        """A line that must not be overlooked."""
        self._console.print(f"[bold red]{escape(heading)}[/] {escape(text)}", highlight=False)

    def _left(self, done: float, total: float) -> str:
        if done <= self._first:
            return ""
        took_s = time.monotonic() - self._started_s
        return f", {in_words(took_s / (done - self._first) * (total - done))} left"


def in_words(duration_s: float) -> str:
    """``2 h 05 min`` or ``40 s``."""
    minutes = round(duration_s / _MINUTE_S)
    if duration_s < _MINUTE_S:
        return f"{duration_s:.0f} s"
    if minutes < _HOUR_MINUTES:
        return f"{minutes} min"
    return f"{minutes // _HOUR_MINUTES} h {minutes % _HOUR_MINUTES:02} min"
