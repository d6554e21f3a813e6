"""A child process that ends with its parent, whichever way the parent ends.

In: a command, a log file. Out: :class:`Child`, with its pid and ways to stop it.
Errors: none of its own; a command that cannot start ends with status 127 and says why in its log.

The child leads a session of its own, so a Ctrl-C at the terminal reaches the parent alone, which
then stops its children in the order it wants. See :mod:`deploy.embedded.guard` for how the child
is made to end where the parent is killed.
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
            env: The whole environment of the child; this process's by default.
            guard: How the child is tied to this process; by default the best way there is.
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
        """The process to signal: the command itself, or the guard that passes signals on."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """The exit status, or None if it still runs after ``timeout_s``."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Send SIGTERM: the child may finish what it has begun."""
        if self.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> int:
        """End the child and whatever it started at once; return the exit status."""
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
        killed = self.kill()  # also what the child left behind in its process group
        return killed if status is None else status

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the log, for a message."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def _best_guard() -> Literal["exec", "watch"]:
    # Linux ties a child to the *thread* that started it: only the main thread lasts long enough.
    in_main_thread = threading.current_thread() is threading.main_thread()
    return "exec" if sys.platform == "linux" and in_main_thread else "watch"
