"""The retraining job's command, as cron or Kubernetes starts it: one at a time, and on where it was."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

from engines.bundle.keys import generate_key
from engines.release.records import history, parse_channel
from engines.release.store import open_store
from tests.support.trainer import TINY, write_tiny_data

ROOT = Path(__file__).parents[2]
RUN = ROOT / "deploy" / "retrain" / "run.sh"
HELD, SETTINGS, TERMINATED = 75, 78, 128 + signal.SIGTERM
NEEDED = ("RUN_ID", "RUNS", "CONFIG", "DATA", "KEY", "STORE")
_PATIENCE_S = 300
# Every start imports the trainer, which is most of what these tests take: the rest is cut short.
SHORT = {
    "[export]\n": (
        '[export]\nversion = "0.1.0-${SYNTHGATE_RETRAIN_RUN_ID}"\n'
        "review_fpr = 0.3\nblock_fpr = 0.25\n"
    ),
    "resamples = 20": "resamples = 2",
    'changes = ["jpeg75", "resize0.75+jpeg90"]': "changes = []",
    "attention_images = 2": "attention_images = 0",
}


def settings(folder: Path) -> dict[str, str]:
    """All that the job needs, in that folder, and nothing of this process's own settings."""
    (folder / "runs").mkdir(exist_ok=True)
    paths = {"RUNS": "runs", "CONFIG": "tiny.toml", "DATA": "data", "KEY": "release.pem"}
    named = {name: str(folder / path) for name, path in paths.items()}
    named |= {"STORE": str(folder / "store"), "RUN_ID": "week-48", "PYTHON": sys.executable}
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    mine = {f"SYNTHGATE_RETRAIN_{name}": value for name, value in named.items()}
    return {**kept, **mine, "OMP_NUM_THREADS": "1"}


def start(environment: dict[str, str], *options: str) -> subprocess.Popen[str]:
    """Start the job."""
    return subprocess.Popen(
        [RUN, *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(job: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status and its standard error."""
    _, error = job.communicate(timeout=_PATIENCE_S)
    return job.returncode, error


@pytest.mark.parametrize("name", NEEDED)
def test_a_setting_that_is_missing_or_empty_is_named(tmp_path: Path, name: str) -> None:
    for value in (None, ""):
        environment = settings(tmp_path)
        environment.pop(f"SYNTHGATE_RETRAIN_{name}")
        if value is not None:
            environment[f"SYNTHGATE_RETRAIN_{name}"] = value
        status, error = ended(start(environment))
        assert status == SETTINGS
        assert f"SYNTHGATE_RETRAIN_{name} is not set: it is " in error


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("RUN_ID", "../elsewhere", "it must name a folder"),
        ("RUN_ID", "cache", "'cache' is reserved"),
        ("RUNS", "/nowhere/at/all", "mount or create it"),
        ("PYTHON", "/nowhere/python", "the interpreter /nowhere/python does not exist"),
    ],
)
def test_a_setting_that_is_wrong_is_told(
    tmp_path: Path, name: str, value: str, expected: str
) -> None:
    status, error = ended(start({**settings(tmp_path), f"SYNTHGATE_RETRAIN_{name}": value}))
    assert (status, expected in error) == (SETTINGS, True)


def test_one_at_a_time(tmp_path: Path) -> None:
    """The second job exits with a status of its own and touches nothing."""
    environment = settings(tmp_path)
    with (tmp_path / "runs" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, error = ended(start(environment))
    assert status == HELD
    assert "another retraining holds" in error
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".lock"]


@pytest.mark.timeout(600)
def test_a_job_that_was_ended_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    """SIGTERM while it trains, the same job again: the training goes on, the channel gets the bundle."""
    write_tiny_data(tmp_path / "data")
    config = TINY
    for before, after in SHORT.items():
        assert before in config
        config = config.replace(before, after)
    (tmp_path / "tiny.toml").write_text(config)
    generate_key(tmp_path / "release.pem")
    (tmp_path / "store").mkdir()
    environment, run = settings(tmp_path), tmp_path / "runs" / "week-48"

    job = start(environment)
    until_s = time.monotonic() + _PATIENCE_S
    while not (run / "last.pt").exists():
        assert job.poll() is None, ended(job)
        assert time.monotonic() < until_s, "no checkpoint came"
        time.sleep(0.005)
    assert ended(start(environment))[0] == HELD
    job.terminate()
    status, error = ended(job)
    assert status == TERMINATED, error
    first = (run / "last.pt").stat().st_mtime_ns
    assert not (run / "signed").exists()

    status, error = ended(start(environment, "--reason", "the week's retraining"))
    assert status == 0, error
    assert "run week-48 ended with status 0" in error
    assert (run / "last.pt").stat().st_mtime_ns >= first
    assert {"train", "release"} <= json.loads((run / "retrain.json").read_text()).keys()
    (change,) = history(open_store(str(tmp_path / "store")), parse_channel("canary"))
    assert change.reason == "the week's retraining"
    assert change.after.version == "0.1.0-week-48"


def test_the_exit_status_is_that_of_the_command_and_options_reach_it(tmp_path: Path) -> None:
    """The interpreter is a setting: here one that says what it was given and ends with 7."""
    interpreter = tmp_path / "python"
    interpreter.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >&2\nexit 7\n')
    interpreter.chmod(0o755)
    two = f"{tmp_path}/first:{tmp_path}/with a space"
    given = {"SYNTHGATE_RETRAIN_PYTHON": str(interpreter), "SYNTHGATE_RETRAIN_DATA": two}
    status, error = ended(start({**settings(tmp_path), **given}, "--compile", "tensorrt"))
    assert status == 7
    arguments = error.splitlines()[1:-1]
    assert arguments[:3] == ["-m", "trainer", "retrain"]
    data = arguments.index("--data")
    assert arguments[data + 1 : data + 3] == [f"{tmp_path}/first", f"{tmp_path}/with a space"]
    assert arguments[-2:] == ["--compile", "tensorrt"]


def test_the_example_for_kubernetes_starts_this_script_with_all_that_it_needs() -> None:
    """And is as careful as it says: no root, nothing written but to volumes, one job at a time."""
    found = yaml.safe_load((RUN.parent / "cronjob.yaml").read_text())
    assert found["spec"]["concurrencyPolicy"] == "Forbid"
    pod = found["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (command,) = container["command"]
    assert command.endswith(RUN.relative_to(ROOT).as_posix())
    given = {one["name"].removeprefix("SYNTHGATE_RETRAIN_") for one in container["env"]}
    assert set(NEEDED) <= given
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["volumes"]}
