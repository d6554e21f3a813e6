"""How progress looks to a person."""

import io
import re

from rich.console import Console

from engines.compile.plan import ConsoleProgress


def shown(*, terminal: bool) -> str:
    """What a small build prints."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    watcher = ConsoleProgress(console)
    watcher.phase_started("Building engine", None, 2)
    watcher.phase_started("Optimizing graph", "Building engine", 30)
    watcher.step_done("Optimizing graph", 11)
    watcher.phase_ended("Optimizing graph")
    watcher.step_done("never begun", 3)
    watcher.step_done("Building engine", 0)
    watcher.phase_started("Writing the plan", "Building engine", 1)
    watcher.phase_ended("Writing the plan")
    watcher.phase_ended("Building engine")
    return file.getvalue()


def test_a_terminal_shows_each_phase_within_its_own() -> None:
    printed = shown(terminal=True)
    assert re.search(r"Building engine +0/2 *\n  Optimizing graph +0/30", printed)
    assert re.search(r"Building engine +━+ +1/2 *\n  Writing the plan +0/1", printed)


def test_a_file_gets_nothing_of_it() -> None:
    assert shown(terminal=False).strip() == ""
