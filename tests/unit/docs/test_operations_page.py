"""The operations page names what a worker may log."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "operations" / "index.md"
METHODS = {"warning", "error", "exception"}


def test_every_warning_and_error_of_the_worker_is_on_the_page() -> None:
    """An operator finds each event with its meaning and what to do."""
    page = PAGE.read_text(encoding="utf-8")
    events = {
        call.args[0].value
        for file in (ROOT / "worker").glob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in METHODS
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }
    assert events
    assert [event for event in sorted(map(str, events)) if f"`{event}`" not in page] == []
