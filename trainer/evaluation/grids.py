"""Tables of a report, in Markdown.

In: text and intervals. Out: text. No errors.
"""

from collections.abc import Sequence

from trainer.evaluation.resampling import Interval


def image(name: str | None, title: str) -> list[str]:
    """The lines of a plot; none where there is none."""
    return ["", f"![{title}]({name})"] if name else []


def cell(figure: Interval) -> str:
    """A figure with its interval."""
    return figure.shown()


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
