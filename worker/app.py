"""``run``: assemble one worker, run it until a signal, drain.

Exit status: 0 drained; 1 a fatal error (logged); 3 drained in part, the rest will be redelivered; 4 the
engine's device is lost, so that a restart, perhaps on another machine, may help.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

from engines.bundle.manifest import BundleError
from worker import __version__
from worker.cache import VerdictCache, connect
from worker.consumer import Consumer
from worker.engine import EngineLoader, EngineSlots, Role
from worker.errors import DeviceGone, Fatal, Retryable, WorkerError
from worker.health import DependencyWatch, HealthServer, Liveness, Readiness
from worker.metrics import Metrics
from worker.offsets import OffsetTracker
from worker.pipeline import JOIN_TIMEOUT_S, STAGES, Pipeline
from worker.rollout import THREAD_NAME as ROLLOUT_THREAD
from worker.rollout import ReleasePoller, RolloutThread, announce
from worker.services import Clocks, Health, Services
from worker.settings import Settings
from worker.shadow import THREAD_NAME as SHADOW_THREAD

EXIT_DRAINED = 0
EXIT_FATAL = 1
EXIT_UNFINISHED = 3
EXIT_DEVICE_LOST = 4
MAY_HANG = (*STAGES, SHADOW_THREAD, ROLLOUT_THREAD)


def run_worker(settings: Settings) -> int:
    """Run one worker; returns the exit status."""
    log = structlog.get_logger()
    stop = threading.Event()
    with _signals_set(stop):
        try:
            status = _serve(settings, stop)
        except (WorkerError, BundleError) as error:
            log.error("worker_failed", error=str(error), kind=type(error).__name__)  # noqa: TRY400 (a message, not a trace)
            status = EXIT_DEVICE_LOST if isinstance(error, DeviceGone) else EXIT_FATAL
    _leave_stuck_threads(status)
    return status


def _leave_stuck_threads(status: int) -> None:
    """End the process at once if a stage still runs: Python's own exit aborts while an engine hangs."""
    stuck = [thread.name for thread in threading.enumerate() if thread.name in MAY_HANG]
    if stuck:
        structlog.get_logger().error("stage_stuck", threads=stuck)
        sys.stderr.flush()
        os._exit(status)


def _serve(settings: Settings, stop: threading.Event) -> int:
    """Serve the probes, load the engine, create the shared services, and work."""
    metrics = Metrics()
    health = Health(
        Liveness(settings.health.stall_after_s, time.monotonic()),
        Readiness("bundle", "group", "kafka", "redis"),
    )
    server = _health_server(settings, health, metrics)
    server.start()
    log = structlog.get_logger()
    log.info("worker_starting", version=__version__, health_port=server.port)
    # Set when unfinished work may be left: whatever waits for a dependency then gives up.
    abandon = threading.Event()
    try:
        loader = EngineLoader(settings)
        engine = loader.first()
        health.readiness.set("bundle", None)
        announce(engine, metrics)
        slots = EngineSlots(engine, settings.engine.canary_share)
        cache = VerdictCache(connect(settings.redis), settings.redis)
        clocks = Clocks(time.monotonic, time.time, abandon.wait)
        return _work(
            Services(settings, metrics, clocks, cache, slots, health), loader, stop, abandon
        )
    finally:
        server.close()
        log.info("worker_stopped")


def _health_server(settings: Settings, health: Health, metrics: Metrics) -> HealthServer:
    host, port = settings.health.host, settings.health.port

    def live() -> str | None:
        return health.liveness.problem(time.monotonic())

    try:
        return HealthServer(host, port, live, health.readiness.problems, metrics)
    except OSError as error:
        raise Fatal(
            f"cannot listen on {host}:{port} (health.host, health.port): {error.strerror}; "
            "port 0 picks a free one"
        ) from error


def _work(
    services: Services, loader: EngineLoader, stop: threading.Event, abandon: threading.Event
) -> int:
    _check_credentials(services.cache)
    offsets = OffsetTracker()
    with _releases_followed(services, loader, abandon):
        pipeline = Pipeline(services, offsets.acknowledge)
        consumer = Consumer(services, offsets, pipeline, stop)
        pipeline.start()
        _watch_dependencies(services)
        try:
            finished = consumer.run()
        finally:
            abandon.set()
            pipeline.close()
    services.slots.close()
    if pipeline.failure is not None:
        raise pipeline.failure
    return EXIT_DRAINED if finished else EXIT_UNFINISHED


def _watch_dependencies(services: Services) -> None:
    settings, liveness = services.settings, services.health.liveness

    def excuse_stall() -> None:
        liveness.progressed_at_s = services.clocks.monotonic()

    DependencyWatch(
        settings.kafka.bootstrap_servers,
        services.cache.ping,
        services.health.readiness,
        excuse_stall,
        services.metrics,
        lambda: services.clocks.pause(settings.health.dependency_check_s),
    ).start()


@contextmanager
def _releases_followed(
    services: Services, loader: EngineLoader, abandon: threading.Event
) -> Iterator[None]:
    """Follow the channels of the release store, if there is one; canary and shadow are installed on entry."""
    engine = services.settings.engine
    if engine.store is None:
        yield
        return
    roles: list[Role] = ["deciding"]
    roles += ["canary"] if engine.canary_share > 0 else []
    roles += ["shadow"] if engine.shadow else []
    pollers = [ReleasePoller(role, loader, services, abandon.is_set) for role in roles]
    rollout = RolloutThread(pollers, services.clocks.pause, engine.poll_interval_s)
    # Before the first event, or another engine would decide the canary's contents after every start.
    rollout.poll()
    rollout.start()
    try:
        yield
    finally:
        abandon.set()
        rollout.join(JOIN_TIMEOUT_S)


def _check_credentials(cache: VerdictCache) -> None:
    """Check the cache: a wrong password ends the worker, an unavailable cache is retried."""
    try:
        cache.ping()
    except Retryable as error:
        structlog.get_logger().warning("redis_unavailable", error=str(error))


@contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT start a drain; the previous handlers are restored afterwards."""

    def request_stop(number: int, _frame: FrameType | None) -> None:
        structlog.get_logger().info("signal", name=signal.Signals(number).name)
        stop.set()

    previous = {
        number: signal.signal(number, request_stop) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
