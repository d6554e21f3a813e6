"""Every command in a code block of the documentation exists, with its options."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SECTION = re.compile(r"^###? synthgate ([^\n]*)\n+```text\n(.*?)```", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
# The how-to pages shorten "synthgate trainer" to "trainer".
COMMAND = re.compile(
    r"^\s*(?:\.venv(?:-dev)?/bin/)?(?:synthgate )?"
    r"((?:worker|trainer|engines) (?:(?:data|release) )?[a-z][a-z-]*)(?= |$)([^#\n]*)",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """The help of each command, from the generated page."""
    page = ROOT / "docs" / "reference" / "cli.md"
    return dict(SECTION.findall(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_documented_commands_exist(page: Path, sections: dict[str, str]) -> None:
    """A renamed command or option fails here until its pages follow."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in BLOCK.findall(text):
        for command, arguments in COMMAND.findall(block):
            assert command in sections, f"{page.name}: synthgate {command} does not exist"
            for option in re.findall(r"--[a-z-]+", arguments):
                assert option in sections[command], f"{page.name}: {command} has no {option}"
