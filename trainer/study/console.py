"""What a person sees of a study: a bar over the grid on a terminal, a line an event in a file.

In: the events of the study. Out: text with the time that is left. No errors.
"""

from trainer.progress import ProgressBar
from trainer.study.processes import Event, Failed, Finished, Started, Stepped


class StudyConsole:
    """Counts cells; the steps of those under way count as parts of one."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar
        self._total, self._left = 0, 0
        self._ended = 0
        self._parts: dict[str, float] = {}

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._bar.note(text)

    def planned(self, total: int, left: int) -> None:
        """Before the first cell."""
        self._total, self._left = total, left
        self._bar.begin(0, left)
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
        ended = self._total - self._left + self._ended
        done = self._ended + sum(self._parts.values())
        text = f"{ended}/{self._total} cells"
        self._bar.show(done, self._left, text)
        if isinstance(event, Finished):
            self.note(f"done    {event.task.name}: {_result(event)}; {text}")
        elif isinstance(event, Failed):
            self.note(f"failed  {event.task.name}: {event.error}; {text}")
        elif isinstance(event, Started):
            self.note(f"started {event.task.name}")


def _result(event: Finished) -> str:
    outcome = event.outcome
    aucs = [one.auc for one in outcome.families if one.condition == "native"]
    mean = f"{sum(aucs) / len(aucs):.3f}" if aucs else "of no image"
    learnt = outcome.explained_variance
    more = "" if learnt is None else f", noise explained {learnt:.2f}"
    return f"AUC {mean}{more}, {outcome.wall_s:.0f} s"
