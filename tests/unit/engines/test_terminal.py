"""What the commands print fits the terminal; checked in a real pseudo-terminal."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.bundles import make_tiny_bundle
from tests.support.engines_cli import main
from tests.support.signing import make_signer
from tests.support.terminal import Screen, in_terminal
from tests.unit.engines.release.candidates import make_candidate

REFERENCE = Path(__file__).parents[3] / "engines" / "bundles" / "reference"


def engines(columns: int, *arguments: str | Path) -> Screen:
    """A command of engines in a terminal, without its log lines."""
    words = " ".join(f"'{argument}'" for argument in arguments)
    shell = f"'{sys.executable}' -m engines {words} 2>/dev/null"
    return in_terminal(["bash", "-c", shell], columns, os.environ)


def test_tables_fit_a_terminal_of_80_columns(tmp_path: Path) -> None:
    tiny = make_tiny_bundle(tmp_path / "tiny")
    for arguments in (
        ("show", REFERENCE),
        ("verify", "--all-runtimes", "--repetitions", "1", tiny),
    ):
        screen = engines(80, *arguments)
        assert screen.status == 0
        assert screen.width <= 80


def test_a_list_of_releases_fits_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines a change at 80 columns, one at 140."""
    signer, store = make_signer(tmp_path), tmp_path / "store"
    store.mkdir()
    command = ["release", "promote", "--store", str(store), "stable", "--skip-latency"]
    for version in ("0.1.0", "0.2.0"):
        bundle = make_candidate(tmp_path / version, signer, version)
        trusted = ["--trusted-keys", str(signer.public), "--json"]
        assert main([*command, str(bundle), *trusted]) == 0
    changes = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for columns, lines in ((80, 2), (140, 1)):
        screen = engines(columns, "release", "list", "--store", store)
        assert screen.width <= columns
        assert len(screen.text.strip().splitlines()) == lines * len(changes)
