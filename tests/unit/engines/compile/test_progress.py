"""How progress looks to a person."""

import io

from rich.console import Console

from engines.compile.progress import ConsoleWatcher


def shown(*, terminal: bool) -> str:
    """What a small build prints."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, _environ={"TERM": "xterm"})
    watcher = ConsoleWatcher(console)
    watcher.began("Building engine", None, 2)
    watcher.began("Optimizing graph", "Building engine", 30)
    watcher.stepped("Optimizing graph", 11)
    watcher.ended("Optimizing graph")
    watcher.stepped("never begun", 3)
    watcher.ended("Building engine")
    return file.getvalue()


def test_a_terminal_shows_each_phase_within_its_own() -> None:
    printed = shown(terminal=True)
    assert "Building engine" in printed


def test_a_file_gets_nothing_of_it() -> None:
    assert shown(terminal=False).strip() == ""
