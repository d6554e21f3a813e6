"""Training from the outside: killed without warning, and in several processes at once."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from tests.support.trainer import RATES, TINY, tiny_config, write_tiny_data
from trainer.cli import main
from trainer.evaluation.metrics import SplitResult
from trainer.training.loop import Devices, build, train
from trainer.training.losses import Loss
from trainer.training.run_logger import StepTimes, Summary

_PATIENCE_S = 400
_PROCESSES = 2
SHORT = {"epochs = 3": "steps = 3", "repeat_epochs = 1": "repeat_epochs = 0"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Generated data."""
    return write_tiny_data(tmp_path / "data")


def arguments(folder: Path, name: str) -> list[str]:
    """``train`` on the data of a folder, into another one."""
    paths = {"config": "tiny.toml", "data": "data", "output": name, "cache": "cache"}
    return ["train"] + [
        part for key, one in paths.items() for part in (f"--{key}", str(folder / one))
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_without_warning_resumes_to_the_same_weights(root: Path) -> None:
    """SIGKILL in the middle leaves no process; --resume ends bit for bit where a whole run ends."""
    folder = root.parent
    (folder / "tiny.toml").write_text(
        TINY.replace("[export]\n", RATES).replace("epochs = 3", "steps = 12")
    )
    with subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments(folder, "killed")], stdout=subprocess.DEVNULL
    ) as process:
        try:
            until_s = time.monotonic() + _PATIENCE_S
            while not (folder / "killed" / "last.pt").exists():
                assert process.poll() is None, "the run ended before it could be killed"
                assert time.monotonic() < until_s, "no checkpoint came"
                time.sleep(0.01)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            assert not children.split(), "a process that the run forked would outlive it"
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "killed" / "run.json").exists()
    assert main([*arguments(folder, "killed"), "--resume"], {}) == 0
    assert main(arguments(folder, "whole"), {}) == 0
    killed, whole = (
        torch.load(folder / name / "last.pt", weights_only=True)["weights"]
        for name in ("killed", "whole")
    )
    assert all(torch.equal(value, killed[name]) for name, value in whole.items())


class Silent:
    """A reporter that keeps the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def step(self, step: int, steps: int, loss: Loss, computed: int) -> None:
        """Keep it."""
        assert step < steps
        assert computed >= 0
        self.losses.append(loss.bce)

    def pace(self, pace: StepTimes) -> None:
        """Not looked at."""

    def epoch(self, step: int, report: SplitResult, explained_variance: float | None) -> None:
        """Not looked at."""

    def finished(self, summary: Summary) -> None:
        """The first process alone speaks, for both."""
        assert summary.processes == _PROCESSES


def one_process(rank: int, root: Path, port: int) -> None:
    """Train as one of two; leaves what it ended with beside the data."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(_PROCESSES),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    torch.set_num_threads(1)
    devices = Devices()
    assert (devices.rank, devices.processes) == (rank, _PROCESSES)
    config = tiny_config(root, SHORT)
    with devices.main_first():
        material = build(config, root.parent / "cache", lambda _text: None)
    reporter = Silent()
    output = root.parent / "two"
    best = train(config, material, output, reporter, resume=False, devices=devices)
    content = {"weights": best.weights, "auc": best.validation_auc, "losses": reporter.losses}
    torch.save(content, root.parent / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_end_with_equal_weights(root: Path) -> None:
    """Each saw batches of its own; averages, norms and the choice of the best are the same."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(one_process, (root, port), nprocs=_PROCESSES)  # type: ignore[no-untyped-call]  # torch's own
    first, second = (
        torch.load(root.parent / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert all(torch.equal(one, second["weights"][name]) for name, one in first["weights"].items())
    assert first["auc"] == second["auc"]
    assert len(first["losses"]) == len(second["losses"]) == 3
    assert first["losses"] != second["losses"]
    saved = torch.load(root.parent / "two" / "best.pt", weights_only=True)["weights"]
    assert all(torch.equal(one, saved[name]) for name, one in first["weights"].items())
