"""The page of settings is the code's."""

from pathlib import Path

import pytest

from worker.settings import Settings
from worker.settings_docs import main, settings_page

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_published_page_is_that_of_the_code(tmp_path: Path) -> None:
    """Byte for byte: else run ``python -m worker.settings_docs docs/reference/settings.md``."""
    written = tmp_path / "settings.md"
    assert main([str(written)]) == 0
    assert PAGE.read_text(encoding="utf-8") == written.read_text(encoding="utf-8")


def test_every_setting_has_its_row() -> None:
    """Name, variable, default, meaning, choices; and what is secret is marked so."""
    page = settings_page()
    for group, info in Settings.model_fields.items():
        assert f"\n## {group}\n" in page
        assert isinstance(info.annotation, type)
        for name in info.annotation.model_fields:
            assert page.count(f"| `SYNTHGATE_{group.upper()}__{name.upper()}` |") == 1
    assert "| `password` | `SYNTHGATE_REDIS__PASSWORD` | (none) | ACL password; *secret* |" in page
    assert "one of `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`" in page
    assert "| `ssl_check_hostname` | `SYNTHGATE_KAFKA__SSL_CHECK_HOSTNAME` | `true` |" in page


def test_the_page_is_the_same_on_every_machine() -> None:
    """No path of the machine that wrote it."""
    assert str(Path(__file__).parents[3]) not in settings_page()


def test_the_command_wants_one_path(capsys: pytest.CaptureFixture[str]) -> None:
    """And says so."""
    assert main(["a", "b"]) == 2
    assert "usage: python -m worker.settings_docs PATH" in capsys.readouterr().err
