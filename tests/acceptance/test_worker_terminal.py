"""What people see of the worker's commands in a real terminal, and what a pipe gets instead."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.events import Outgoing, picture, structured
from tests.support.lane import Lane
from tests.support.terminal import Screen, in_terminal
from tests.support.worker_process import environment

COLUMNS = (80, 140)
LONG_ID = "albums/2026/summer/" + "a-rather-long-name-of-an-upload" * 4


def worker(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "worker", *map(str, arguments)]


def verdict(mode: str, score: float) -> str:
    """One line of a verdict topic."""
    data = {
        "content_id": LONG_ID,
        "event_id": f"upload-of-{LONG_ID}",
        "media": {"sha256": "a" * 64},
        "scores": [{"score": score}],
        "band": "review" if score > 0.5 else "allow",
        "model": {"name": "reference", "version": "0.7.0", "bundle_sha256": "b" * 64},
        "latency_ms": {"infer": 12.3456, "total": 23456.789},
        "mode": mode,
    }
    return json.dumps({"id": f"{mode}-1", "data": data}) + "\n"


@pytest.mark.parametrize("columns", COLUMNS)
def test_check_config_fits(columns: int) -> None:
    """It stays JSON, so that it can be copied into a program."""
    screen = in_terminal(worker("check-config"), columns, environment({}))
    assert screen.status == 0
    assert json.loads(screen.text)["log"] == {"level": "info", "format": "json"}
    assert screen.width <= columns


@pytest.mark.parametrize("columns", COLUMNS)
def test_dry_run_fits_and_shows_results_only(columns: int, bundle: Path, tmp_path: Path) -> None:
    """Results are wrapped text; the log beside them shows warnings only."""
    event, broken = tmp_path / "event.json", tmp_path / "broken.json"
    event.write_bytes(structured(LONG_ID, image=picture(1)).value or b"")
    broken.write_text("{")
    command = worker("dry-run", "--offline", "--bundle", bundle, "event.json", "broken.json")
    settings = {"engine.allow_unsigned": True}
    screen = in_terminal(
        ["sh", "-c", 'cd "$0" && exec "$@"', tmp_path, *command], columns, environment(settings)
    )
    assert screen.status == 1
    lines = screen.text.splitlines()
    assert [line for line in lines if line.startswith(("ok", "failed"))] == [
        "ok bundle",
        "ok event event.json",
        "failed event broken.json",
    ]
    assert "runtime_chosen" not in screen.text
    assert "the record's value is not JSON" in screen.text
    results = screen.text[screen.text.index("ok bundle") :]
    assert Screen(results, 0).width <= columns


@pytest.mark.parametrize("columns", COLUMNS)
def test_compare_fits(columns: int, tmp_path: Path) -> None:
    """Long content ids fold inside their column."""
    (tmp_path / "verdicts.jsonl").write_text(verdict("enforce", 0.1) + verdict("shadow", 0.9))
    screen = in_terminal(worker("compare", tmp_path / "verdicts.jsonl"), columns, environment({}))
    assert screen.status == 0, screen.text
    assert "pairs of the same event: 1" in screen.text
    assert "0.9000 review" in screen.text
    assert screen.width <= columns


def test_replay_fits(lane: Lane) -> None:
    """A list of dead letters is text on a terminal, with a summary at its end."""
    lane.start()
    lane.send(Outgoing(LONG_ID.encode(), b"{" + b"x" * 100))
    with lane.dead_letters() as letters:
        letters.wait_for(1)
    screen = in_terminal(worker("replay", "--list"), 80, environment(lane.settings()))
    assert screen.status == 0, screen.text
    first, *_, last = screen.text.splitlines()
    assert first.startswith("listed  partition ")
    assert first.endswith("event: malformed_json")
    assert last == "1 listed"
    assert screen.width <= 80


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=["plain", "NO_COLOR"]
)
def test_console_logs_are_coloured_on_a_terminal(
    variables: dict[str, str], bundle: Path, tmp_path: Path, *, coloured: bool
) -> None:
    """Unless NO_COLOR is set."""
    settings = {"engine.bundle": bundle, "log.format": "console", "log.level": "info"}
    command = worker("score", tmp_path / "none.png")
    screen = in_terminal(command, 140, environment(settings) | variables)
    assert "runtime_chosen" in screen.text
    assert ("\x1b[" in screen.raw) == coloured


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True)],
    ids=["plain", "FORCE_COLOR"],
)
def test_console_logs_are_plain_in_a_pipe(
    variables: dict[str, str], bundle: Path, tmp_path: Path, *, coloured: bool
) -> None:
    """Unless FORCE_COLOR is set."""
    settings = {"engine.bundle": bundle, "log.format": "console"}
    process = subprocess.run(
        worker("score", tmp_path / "none.png"),
        env=environment(settings) | variables,
        capture_output=True,
        check=False,
    )
    assert b"runtime_chosen" in process.stderr
    assert (b"\x1b[" in process.stderr) == coloured


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [(["score"], 1), (["check-config"], 0), (["--help"], 0)],
    ids=["score", "check-config", "help"],
)
def test_a_closed_pipe_ends_a_command_quietly(
    arguments: list[str], lines: int, bundle: Path, tmp_path: Path
) -> None:
    """As in ``worker score DIR | head -1``: status 141, and no traceback."""
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    paths = [str(tmp_path)] if arguments == ["score"] else []
    variables = environment({"engine.bundle": bundle, "batch.max_images": 1})
    variables.pop("PYTHONUNBUFFERED", None)
    process = subprocess.Popen(
        worker(*arguments, *paths),
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    for _ in range(lines):
        assert process.stdout.readline().startswith(b'{"path"')
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), b"Traceback" in errors, b"BrokenPipe" in errors) == (141, False, False)
