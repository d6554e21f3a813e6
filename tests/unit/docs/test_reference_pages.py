"""The generated pages of the documentation match the code."""

from pathlib import Path

import pytest

from docs import reference_pages
from docs.reference_pages import GROUPS, cli_page, main, settings_page
from worker.settings import Settings

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as the code is now."""
    directory = tmp_path_factory.mktemp("reference")
    assert main(directory) == 0
    return directory


def test_the_published_pages_are_not_stale(written: Path) -> None:
    """Byte for byte, and no other schema beside them: else run ``python -m docs.reference_pages``."""
    for path in sorted(written.rglob("*.*")):
        name = path.relative_to(written)
        assert (PUBLISHED / name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
    names = {path.name for path in (PUBLISHED / "schemas").iterdir()}
    assert names == {path.name for path in (written / "schemas").iterdir()}


def test_every_setting_has_its_row() -> None:
    """With its variable, default, meaning and choices; secrets are marked."""
    page = settings_page()
    for group, info in Settings.model_fields.items():
        assert f"\n## {group}\n" in page
        assert isinstance(info.annotation, type)
        for name in info.annotation.model_fields:
            assert page.count(f"| `SYNTHGATE_{group.upper()}__{name.upper()}` |") == 1
    assert "| `password` | `SYNTHGATE_REDIS__PASSWORD` | (none) | ACL password; *secret* |" in page
    assert "one of `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`" in page
    assert "| `ssl_check_hostname` | `SYNTHGATE_KAFKA__SSL_CHECK_HOSTNAME` | `true` |" in page


def test_every_command_has_its_section(written: Path) -> None:
    """Commands of commands too."""
    page = (written / "cli.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        f"## synthgate {group}" for group in GROUPS
    ]
    for command in ("worker run", "trainer data check", "engines release promote"):
        assert f"\n### synthgate {command}\n" in page


def test_metrics_are_listed_by_the_names_that_prometheus_reads(written: Path) -> None:
    """Counters end in ``_total``; labels stand beside them."""
    page = (written / "metrics.md").read_text(encoding="utf-8")
    assert "| `synthgate_verdicts_total` | counter | `band` | Verdicts by band |" in page
    assert "| `synthgate_dead_letters_total` | counter | `stage`, `code` |" in page


def test_the_pages_hold_no_path_of_the_machine(written: Path) -> None:
    """A page is the same wherever it is generated."""
    for path in written.rglob("*.*"):
        assert str(ROOT) not in path.read_text(encoding="utf-8")


def test_every_help_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """No list of choices is so long that argparse cannot wrap it, and no percent sign is doubled."""
    monkeypatch.setattr(reference_pages, "HELP_COLUMNS", "80")
    texts = cli_page().split("```text\n")[1:]
    lines = [line for text in texts for line in text.split("\n```")[0].splitlines()]
    assert [line for line in lines if len(line) > 80 or "%%" in line] == []
