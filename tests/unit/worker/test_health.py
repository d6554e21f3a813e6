"""Live, ready and measured: decided by plain times, told by a real HTTP server."""

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from worker.consumer import beat
from worker.errors import Fatal, Retryable
from worker.health import DependencyWatch, HealthServer, Liveness, Readiness
from worker.metrics import Metrics

STALL_S = 60.0


def test_a_worker_that_turns_and_publishes_is_live() -> None:
    """However much waits, progress is enough."""
    liveness = Liveness(STALL_S, 0.0)
    for now_s in range(0, 1000, 50):
        beat(liveness, float(now_s), waiting=1_000_000)
        liveness.progressed_at_s = float(now_s)
        assert liveness.problem(now_s + 50.0) is None


def test_a_worker_without_work_is_live() -> None:
    """Nothing to publish is no stall."""
    liveness = Liveness(STALL_S, 0.0)
    for now_s in range(0, 1000, 50):
        beat(liveness, float(now_s), waiting=0)
    assert liveness.problem(1000.0) is None


def test_a_loop_that_stands_still_is_not_live() -> None:
    """Only once it has done so for longer than allowed; it may come back."""
    liveness = Liveness(STALL_S, 0.0)
    beat(liveness, 10.0, waiting=0)
    assert liveness.problem(70.0) is None
    assert liveness.problem(71.0) == "the polling loop has not run for 61 s"
    beat(liveness, 72.0, waiting=0)
    assert liveness.problem(72.0) is None


def test_work_that_waits_without_progress_is_not_live() -> None:
    """The loop turns, the engine hangs: a restart helps, so say so."""
    liveness = Liveness(STALL_S, 0.0)
    beat(liveness, 0.0, waiting=0)
    for now_s in (1.0, 30.0, 61.0):
        beat(liveness, now_s, waiting=5)
    assert liveness.problem(60.0) is None
    assert liveness.problem(61.0) == "events wait but none was published for 61 s"
    liveness.progressed_at_s = 61.0
    assert liveness.problem(61.0) is None


def test_ready_when_everything_that_was_asked_for_holds() -> None:
    """Each name is a problem until it was seen to hold, and again when it stops to."""
    readiness = Readiness("bundle", "kafka")
    assert readiness.problems() == {"bundle": "not yet", "kafka": "not yet"}
    readiness.set("bundle", None)
    readiness.set("kafka", None)
    assert readiness.problems() == {}
    readiness.set("kafka", "away")
    assert readiness.problems() == {"kafka": "away"}


class Watched:
    """A dependency watch with a cache that answers as set, beside a real port for the broker."""

    def __init__(self, servers: str, cache_error: Exception | None = None) -> None:
        self.readiness = Readiness("kafka", "redis")
        self.metrics = Metrics()
        self.cache_error = cache_error
        self.down = 0
        self.checks = 0
        self.watch = DependencyWatch(
            servers, self._ping, self.readiness, self._on_down, self.metrics, self._pause
        )

    def _ping(self) -> None:
        if self.cache_error is not None:
            raise self.cache_error

    def _on_down(self) -> None:
        self.down += 1

    def _pause(self) -> bool:
        self.checks += 1
        return self.checks == 3

    def up(self, name: str) -> float | None:
        """The metric of that dependency."""
        return self.metrics.registry.get_sample_value(
            "synthgate_dependency_up", {"dependency": name}
        )


@pytest.fixture
def port() -> Iterator[int]:
    """A port that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


def test_both_dependencies_answer(port: int) -> None:
    """One broker of the list is enough."""
    watched = Watched(f"127.0.0.1:1, 127.0.0.1:{port}")
    watched.watch.check()
    assert (watched.readiness.problems(), watched.down) == ({}, 0)
    assert (watched.up("kafka"), watched.up("redis")) == (1, 1)


@pytest.mark.parametrize("error", [Retryable("Redis: away"), Fatal("Redis refuses this worker")])
def test_a_cache_that_does_not_answer_is_reported(port: int, error: Exception) -> None:
    """Not ready, and no stall while it lasts; ready again when it is back."""
    watched = Watched(f"127.0.0.1:{port}", error)
    watched.watch.check()
    assert (watched.readiness.problems(), watched.down) == ({"redis": str(error)}, 1)
    assert (watched.up("kafka"), watched.up("redis")) == (1, 0)
    watched.cache_error = None
    watched.watch.check()
    assert (watched.readiness.problems(), watched.up("redis")) == ({}, 1)


@pytest.mark.parametrize("servers", ["127.0.0.1:1", "nowhere.invalid:9092", "[::1]:1"])
def test_a_broker_that_does_not_answer_is_reported(servers: str) -> None:
    """The problem names where it was looked for."""
    watched = Watched(servers)
    watched.watch.check()
    assert watched.readiness.problems() == {"kafka": f"no broker accepts connections at {servers}"}
    assert (watched.up("kafka"), watched.down) == (0, 1)


def test_the_watch_looks_until_it_is_stopped(port: int) -> None:
    """Once at the start, then after each pause."""
    watched = Watched(f"127.0.0.1:{port}")
    watched.watch.start()
    watched.watch.join(timeout=10)
    assert not watched.watch.is_alive()
    assert watched.checks == 3


class Probe:
    """A running health server whose answers the test sets."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.stuck: str | None = None
        self.missing: dict[str, str] = {}
        self.server = HealthServer(
            "127.0.0.1", 0, lambda: self.stuck, lambda: self.missing, self.metrics
        )

    def get(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Probe]:
    """A health server on a free port."""
    made = Probe()
    made.server.start()
    yield made
    made.server.close()


@pytest.fixture
def probe(running: Probe) -> Probe:
    """The same server; all is well until the test says otherwise."""
    running.stuck, running.missing = None, {}
    return running


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/readyz?verbose=1"])
def test_a_healthy_worker_answers_200(probe: Probe, path: str) -> None:
    """With a body that says so."""
    status, content_type, body = probe.get(path)
    assert (status, content_type) == (200, "application/json")
    assert json.loads(body) == {"status": "ok", "problems": {}}


def test_a_stalled_worker_answers_503(probe: Probe) -> None:
    """Liveness and readiness are told apart, each with its reasons."""
    probe.stuck = "the polling loop has not run for 61 s"
    assert probe.get("/livez")[0] == 503
    assert json.loads(probe.get("/livez")[2])["problems"] == {"loop": probe.stuck}
    assert probe.get("/readyz")[0] == 200
    probe.stuck, probe.missing = None, {"redis": "away"}
    assert probe.get("/livez")[0] == 200
    status, _, body = probe.get("/readyz")
    assert (status, json.loads(body)) == (503, {"status": "failing", "problems": {"redis": "away"}})


def test_metrics_are_what_was_counted(probe: Probe) -> None:
    """In Prometheus' text format."""
    probe.metrics.events.labels("verdict").inc(3)
    status, content_type, body = probe.get("/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert b'synthgate_events_total{outcome="verdict"} 3.0' in body


def test_any_other_path_says_where_to_look(probe: Probe) -> None:
    """404, with the paths that there are."""
    status, _, body = probe.get("/")
    assert (status, body) == (404, b"try /livez, /readyz or /metrics\n")


def test_a_port_that_is_taken_is_an_error(probe: Probe) -> None:
    """Two workers on one machine need two ports."""
    with pytest.raises(OSError, match="Address already in use"):
        HealthServer("127.0.0.1", probe.server.port, lambda: None, dict, Metrics())
