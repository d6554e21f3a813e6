"""A cell's process ends when the study is killed, and not before."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import multiprocessing, sys, time
from trainer.study.orphans import end_with_parent

def child(connection):
    end_with_parent()
    connection.send(multiprocessing.current_process().pid)
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    context.Process(target=child, args=(sender,)).start()
    sys.stdout.write(f"{receiver.recv()}\\n")
    sys.stdout.flush()
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_cell_does_not_outlive_the_study(tmp_path: Path) -> None:
    """Even a kill that nobody can answer takes the cells with it."""
    script = tmp_path / "parent.py"
    script.write_text(PROGRAM)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until_s = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < until_s, "the cell outlived the study"
        time.sleep(0.02)
