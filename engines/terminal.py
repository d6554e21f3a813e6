"""Helpers of the command lines: argument types, logging to standard error, tables."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import structlog
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  no public name

Facts = dict[str, object]  # what json.dumps takes


def positive(text: str) -> int:
    """An argument that is a positive integer."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def log_to_stderr() -> None:
    """Send structlog's lines to standard error, so that standard output holds only the result.

    A worker configures its own logging; this is for ``python -m engines`` and ``-m trainer``.
    """
    console = Console(stderr=True)  # knows NO_COLOR and FORCE_COLOR
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.dev.set_exc_info,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            # structlog's own default asks standard output whether it is a terminal.
            structlog.dev.ConsoleRenderer(colors=console.is_terminal and not console.no_color),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def write_json(facts: Facts) -> None:
    """Write one line of JSON to standard output."""
    sys.stdout.write(json.dumps(facts) + "\n")


def say(text: str, console: Console | None = None) -> None:
    """Print text as it is: no markup, no highlighting, no line breaks added."""
    (console or Console()).print(text, highlight=False, soft_wrap=True, markup=False)


def report_refusal(error: Exception, facts: Facts | None = None) -> None:
    """Print why a command was refused: in red on standard error, or ``facts`` as JSON if given."""
    if facts is None:
        text = f"[bold red]refused[/] {escape(str(error))}"
        Console(stderr=True).print(text, highlight=False, soft_wrap=True)
    else:
        write_json({**facts, "ok": False, "error": str(error)})


def columns(title: str, names: Sequence[str], *, wide: Sequence[str] = ()) -> Table:
    """A table with a title and a header; cells of the ``wide`` columns may wrap."""
    table = _table(title)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name not in wide)
    return table


def key_values(title: str, rows: Mapping[str, str]) -> Table:
    """A table of names and values."""
    table = _table(title, header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(key, escape(value))
    return table


def _table(title: str, *, header: bool = True) -> Table:
    # Two spaces between columns: one of padding, one of the box.
    return Table(
        title=escape(title),
        title_justify="left",
        box=box.SIMPLE,
        show_header=header,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
