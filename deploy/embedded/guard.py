"""Runs one command so that it cannot outlive the process that started it.

Run as a script: ``guard.py MODE PARENT_PID COMMAND...``; standard library only, so it starts in milliseconds. It
exits with the command's status, or with 127 and a message on standard error if the command cannot be started.

``exec``   Linux: asks the kernel to kill this process when its parent ends, then becomes the command.
``watch``  Any platform: stays beside the command and kills it when its standard input, a pipe that the parent
           holds open, is closed. The pipe closes however the parent ends.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from types import FrameType

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CANNOT_START = 127  # as a shell reports it


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status (``exec`` mode does not return)."""
    mode, parent_pid, *command = arguments
    try:
        if mode == "exec":
            _become(command, int(parent_pid))
        return _watch(command)
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error}\n")
        return CANNOT_START


def _become(command: list[str], parent_pid: int) -> None:
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError("the kernel refused PR_SET_PDEATHSIG")
    # The parent may have ended before the request to the kernel.
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)
    os.execvp(command[0], command)  # noqa: S606 (no shell is the point)


def _watch(command: list[str]) -> int:
    # The handlers come first: a signal that arrives while the command starts would end this process alone.
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(signum: int, _frame: FrameType | None) -> None:
        if child is None:
            early.append(signum)
        else:
            child.send_signal(signum)

    def kill_at_end_of_pipe() -> None:
        while os.read(0, 1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 (our own command)
    for signum in early:
        child.send_signal(signum)
    threading.Thread(target=kill_at_end_of_pipe, daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
