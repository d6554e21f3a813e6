"""Health over HTTP: liveness, readiness and metrics.

- ``/livez``: 503 when the polling loop has stopped, or when events wait and none is published although broker and
  cache answer. Only then does a restart help.
- ``/readyz``: 503 until the bundle is verified and the group joined. Also 503 while broker or cache do not answer, and
  while the group has refused commits for longer than a session.
- ``/metrics``: Prometheus.
"""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from worker.errors import WorkerError
from worker.metrics import Metrics

CONNECT_TIMEOUT_S = 2.0


class Liveness:
    """Decides whether the worker is stuck, from two times that its threads set.

    Args:
        stall_after_s: Not live after this time without a poll, or without progress while events wait.
        now_s: The start time, monotonic seconds.

    Attributes:
        polled_at_s: When the polling loop ran last.
        progressed_at_s: When an event was published last, or none could be (nothing waits, a dependency is down).
    """

    def __init__(self, stall_after_s: float, now_s: float) -> None:
        self._stall_after_s = stall_after_s
        self.polled_at_s = now_s
        self.progressed_at_s = now_s

    def problem(self, now_s: float) -> str | None:
        """Why the worker is stuck; None while it is live."""
        polled_s, progressed_s = now_s - self.polled_at_s, now_s - self.progressed_at_s
        if polled_s > self._stall_after_s:
            return f"the polling loop has not run for {polled_s:.0f} s"
        if progressed_s > self._stall_after_s:
            return f"events wait but none was published for {progressed_s:.0f} s"
        return None


class Readiness:
    """The conditions for being ready: each holds, or has a reason why not."""

    def __init__(self, *names: str) -> None:
        self._lock = threading.Lock()
        self._problems: dict[str, str | None] = dict.fromkeys(names, "not yet")

    def set(self, name: str, problem: str | None) -> None:
        """Set the reason why a condition does not hold; None if it holds."""
        with self._lock:
            self._problems[name] = problem

    def problems(self) -> dict[str, str]:
        """The reasons by condition; empty when ready."""
        with self._lock:
            return {name: problem for name, problem in self._problems.items() if problem}


class DependencyWatch(threading.Thread):
    """Checks broker and cache periodically.

    Args:
        bootstrap_servers: Brokers; one that accepts a connection is enough.
        ping: Raises a WorkerError if the cache does not answer.
        readiness: Gets the result of each check.
        on_down: Called when a dependency is down: no progress is then not a stall.
        metrics: ``synthgate_dependency_up``.
        pause: Waits between checks; returns True to end.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        ping: Callable[[], None],
        readiness: Readiness,
        on_down: Callable[[], None],
        metrics: Metrics,
        pause: Callable[[], bool],
    ) -> None:
        super().__init__(name="dependency-watch", daemon=True)
        self._bootstrap_servers, self._ping = bootstrap_servers, ping
        self._readiness, self._metrics = readiness, metrics
        self._on_down, self._pause = on_down, pause

    def run(self) -> None:
        """Check until ``pause`` returns True."""
        while True:
            self.check()
            if self._pause():
                return

    def check(self) -> None:
        """Check both once."""
        problems = {
            "kafka": _broker_problem(self._bootstrap_servers),
            "redis": self._cache_problem(),
        }
        for name, problem in problems.items():
            self._readiness.set(name, problem)
            self._metrics.dependency_up.labels(name).set(0 if problem else 1)
        if any(problems.values()):
            self._on_down()

    def _cache_problem(self) -> str | None:
        try:
            self._ping()
        except WorkerError as error:
            return str(error)
        return None


def _broker_problem(bootstrap_servers: str) -> str | None:
    for server in bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
        except (OSError, ValueError):
            continue
        return None
    return f"no broker accepts connections at {bootstrap_servers}"


class HealthServer:
    """Serves ``/livez``, ``/readyz`` and ``/metrics`` in its own thread.

    Args:
        host: Address to listen on.
        port: Port; 0 picks a free one (see the property ``port``).
        live: Returns why the worker is stuck, or None.
        ready: Returns the reasons for not being ready; empty when ready.
        metrics: The metrics to serve.

    Raises:
        OSError: The port is in use.
    """

    def __init__(
        self,
        host: str,
        port: int,
        live: Callable[[], str | None],
        ready: Callable[[], Mapping[str, str]],
        metrics: Metrics,
    ) -> None:
        def answer(path: str) -> tuple[int, str, bytes]:
            if path == "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry)
            if path == "/livez":
                problem = live()
                return _probe({"loop": problem} if problem else {})
            if path == "/readyz":
                return _probe(ready())
            return 404, "text/plain", b"try /livez, /readyz or /metrics\n"

        class _Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, content_type, body = answer(self.path.split("?", maxsplit=1)[0])
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
                structlog.get_logger().debug("http_request", line=format % args)

        self._server = ThreadingHTTPServer((host, port), _Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health-server", daemon=True
        )

    @property
    def port(self) -> int:
        """The port on which the server listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()


def _probe(problems: Mapping[str, str]) -> tuple[int, str, bytes]:
    body = json.dumps({"status": "failing" if problems else "ok", "problems": dict(problems)})
    return 503 if problems else 200, "application/json", body.encode() + b"\n"
