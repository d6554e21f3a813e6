"""A child process that ends with its parent, however the parent ends.

A command that cannot start ends with status 127 and says why in its log. The child leads its own session, so Ctrl-C
in the terminal reaches only the parent, which then stops its children in the order it wants.
:mod:`deploy.embedded.guard` ends the child when the parent is killed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

GUARD = Path(__file__).with_name("guard.py")
STOP_TIMEOUT_S = 10.0


class Child:
    """One running command; its output is appended to a log file."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        guard: Literal["exec", "watch"] | None = None,
    ) -> None:
        """Start the command.

        Args:
            command: The program and its arguments.
            log_path: Standard output and error are appended to it.
            env: The complete environment of the child; by default this process's.
            guard: How the child is tied to this process; by default the best way on this platform.
        """
        guard = guard or _best_guard()
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (commands come from this repository)
                [sys.executable, "-I", "-S", str(GUARD), guard, str(os.getpid()), *command],
                stdin=subprocess.PIPE if guard == "watch" else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
        self.log_path = log_path

    @property
    def pid(self) -> int:
        """The process to signal: the command, or the guard that forwards signals to it."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """The exit status, or None if the child still runs after ``timeout_s``."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Send SIGTERM, so that the child can finish its work."""
        if self.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> int:
        """Kill the child and its process group; return the exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        status = self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return status

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, and after ``timeout_s`` SIGKILL; return the exit status."""
        self.terminate()
        status = self.wait(timeout_s)
        killed = self.kill()  # also processes that the child left in its group
        return killed if status is None else status

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the log, for an error message."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def _best_guard() -> Literal["exec", "watch"]:
    # Linux ties a child to the *thread* that started it: only the main thread lasts long enough.
    in_main_thread = threading.current_thread() is threading.main_thread()
    return "exec" if sys.platform == "linux" and in_main_thread else "watch"
