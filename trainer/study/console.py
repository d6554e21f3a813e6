"""What a person sees of a study: a bar over the grid on a terminal, a line an event in a file.

In: the events of the study. Out: text with the time that is left. No errors.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from trainer.study.processes import Event, Failed, Finished, Started, Stepped

_LINE_EVERY_S = 60.0


class StudyConsole:
    """Counts cells; the steps of those under way count as parts of one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("study"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._line: TaskID | None = None
        self._total, self._left = 0, 0
        self._ended = 0
        self._parts: dict[str, float] = {}
        self._started_s = self._told_s = time.monotonic()

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

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._console.print(escape(text), highlight=False)

    def planned(self, total: int, left: int) -> None:
        """Before the first cell."""
        self._total, self._left = total, left
        self._started_s = time.monotonic()
        self._line = self._bar.add_task("study", total=left, text="")
        self.note(f"{total} cells, {total - left} of them have a result already")

    def happened(self, event: Event) -> None:
        """After each event."""
        name = event.task.name
        if isinstance(event, Stepped):
            self._parts[name] = event.step / event.steps
        elif isinstance(event, Started):
            self._parts[name] = 0.0
        else:
            self._parts.pop(name, None)
            self._ended += 1
        self._show(event)

    def _show(self, event: Event) -> None:
        if self._line is not None:
            done = self._ended + sum(self._parts.values())
            self._bar.update(self._line, completed=done, text=self._text())
        if isinstance(event, Finished):
            outcome = event.outcome
            aucs = [one.auc for one in outcome.families if one.condition == "native"]
            mean = f"{sum(aucs) / len(aucs):.3f}" if aucs else "of no image"
            learnt = outcome.explained_variance
            more = "" if learnt is None else f", noise explained {learnt:.2f}"
            self.note(
                f"done    {event.task.name}: AUC {mean}{more}, {outcome.wall_s:.0f} s; "
                f"{self._text()}"
            )
        elif isinstance(event, Failed):
            self.note(f"failed  {event.task.name}: {event.error}; {self._text()}")
        elif isinstance(event, Started):
            self.note(f"started {event.task.name}")
        elif time.monotonic() - self._told_s >= _LINE_EVERY_S and not self._console.is_terminal:
            self._told_s = time.monotonic()
            self.note(self._text())

    def _text(self) -> str:
        done = self._ended + sum(self._parts.values())
        ended = self._total - self._left + self._ended
        left = f"{ended}/{self._total} cells"
        if done > 0:
            took_s = time.monotonic() - self._started_s
            left += f", {in_words(took_s / done * (self._left - done))} left"
        return left


def in_words(duration_s: float) -> str:
    """``2 h 05 min`` or ``40 s``."""
    minutes = round(duration_s / 60)
    if duration_s < 60:  # noqa: PLR2004  a minute
        return f"{duration_s:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004  an hour
