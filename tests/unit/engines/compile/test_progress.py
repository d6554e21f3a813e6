"""How progress looks to a person."""

import io
import re

from rich.console import Console

from engines.compile.plan import ConsoleWatcher


def shown(*, terminal: bool) -> str:
    """What a small build prints."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    watcher = ConsoleWatcher(console)
    watcher.began("Building engine", None, 2)
    watcher.began("Optimizing graph", "Building engine", 30)
    watcher.stepped("Optimizing graph", 11)
    watcher.ended("Optimizing graph")
    watcher.stepped("never begun", 3)
    watcher.stepped("Building engine", 0)
    watcher.began("Writing the plan", "Building engine", 1)
    watcher.ended("Writing the plan")
    watcher.ended("Building engine")
    return file.getvalue()


def test_a_terminal_shows_each_phase_within_its_own() -> None:
    printed = shown(terminal=True)
    assert re.search(r"Building engine +0/2 *\n  Optimizing graph +0/30", printed)
    assert re.search(r"Building engine +━+ +1/2 *\n  Writing the plan +0/1", printed)


def test_a_file_gets_nothing_of_it() -> None:
    assert shown(terminal=False).strip() == ""
