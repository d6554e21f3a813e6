"""What the commands print fits the terminal; checked in a real pseudo-terminal."""

import json
import os
import subprocess
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


def test_log_lines_that_go_to_a_file_have_no_colours() -> None:
    """Also where standard output is a terminal; NO_COLOR turns them off on a terminal."""
    script = (
        "import structlog; from engines.terminal import log_to_stderr; log_to_stderr(); "
        "structlog.get_logger().warning('runtime_skipped', runtime='openvino-cpu')"
    )
    controller, terminal = os.openpty()
    environment = {name: value for name, value in os.environ.items() if "COLOR" not in name}

    def logged(stderr: int, **variables: str) -> bytes:
        done = subprocess.run(
            [sys.executable, "-c", script],
            stdout=terminal,
            stderr=stderr,
            env=environment | {"TERM": "xterm"} | variables,
            cwd=Path(__file__).parents[3],
            check=True,
        )
        return done.stderr or os.read(controller, 4096)

    try:
        assert b"\x1b" not in logged(subprocess.PIPE)
        assert b"\x1b" in logged(terminal)
        assert b"\x1b" not in logged(terminal, NO_COLOR="1")
    finally:
        os.close(controller)
        os.close(terminal)
