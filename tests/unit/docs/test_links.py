"""Links of the Markdown files outside the site lead to files and headings of the repository."""

import re
import subprocess
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify

ROOT = Path(__file__).parents[3]
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:)([^)#\s]*)#?([^)\s]*)\)")


def markdown_files() -> list[str]:
    """The repository's Markdown files outside ``docs``, whose links the site's build checks."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in listing.stdout.splitlines() if not name.startswith("docs/")]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {slugify(re.sub(r"[`*]", "", heading), "-") for heading in headings}


@pytest.mark.parametrize("name", markdown_files())
def test_links_lead_somewhere(name: str) -> None:
    """The file is there, and so is the heading."""
    page = ROOT / name
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{name} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(linked), f"{name}: {target} has no #{anchor}"
