"""The progress of a long command: a bar on a terminal, a line now and then in a file.

In: steps. Out: text on the console. No errors.
"""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

_MINUTE_S = 60
_HOUR_MINUTES = 60
_BAR_COLUMNS = 20  # the least width of the bar, however narrow the terminal is


class _BarAndText(Progress):
    """The bar in a line of its own; the text below it is cut at the terminal's width."""

    text = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the two lines."""
        yield self.make_tasks_table(self.tasks)
        yield Text(self.text, no_wrap=True, overflow="ellipsis")


class ProgressBar:
    """One bar with a text below it."""

    def __init__(self, console: Console, name: str, line_every_s: float = 30.0) -> None:
        """Prepare the bar.

        Args:
            console: where it is shown.
            name: of the command or its part.
            line_every_s: how often a line is due where there is no terminal.
        """
        self._console, self._name, self._line_every_s = console, name, line_every_s
        self._bar = _BarAndText(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=_BAR_COLUMNS)),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._printed_s = self._started_s = time.monotonic()
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
        """Count from here: what was done before does not tell the speed."""
        self._task = self._bar.add_task(self._name, total=total, left="")
        self._bar.update(self._task, completed=done)
        self._started_s, self._first = time.monotonic(), done

    def show(self, done: float, total: float, text: str) -> None:
        """Show a step; in a file, print a line if one is due."""
        if self._task is None:
            self.begin(done, total)
        left = self._left(done, total)
        self._bar.text = text
        if self._task is not None:
            self._bar.update(self._task, completed=done, left=left)
        due = time.monotonic() - self._printed_s >= self._line_every_s
        if not self._console.is_terminal and due:
            self._printed_s = time.monotonic()
            self.note(f"{text}, {left}" if left else text)

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(escape(text), highlight=False)

    def warn(self, heading: str, text: str) -> None:
        """Print a line with a heading that stands out."""
        self._console.print(f"[bold red]{escape(heading)}[/] {escape(text)}", highlight=False)

    def _left(self, done: float, total: float) -> str:
        if done <= self._first:
            return ""
        took_s = time.monotonic() - self._started_s
        return f"{in_words(took_s / (done - self._first) * (total - done))} left"


def in_words(duration_s: float) -> str:
    """``2 h 05 min`` or ``40 s``."""
    minutes = round(duration_s / _MINUTE_S)
    if duration_s < _MINUTE_S:
        return f"{duration_s:.0f} s"
    if minutes < _HOUR_MINUTES:
        return f"{minutes} min"
    return f"{minutes // _HOUR_MINUTES} h {minutes % _HOUR_MINUTES:02} min"
