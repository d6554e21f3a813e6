"""``python -m worker run``: assemble one worker, run it until a signal, drain.

Exit status: 0 drained; 1 a fatal error (logged); 3 drained in part, the rest will be redelivered; 4 the engine's
device is lost, so that a restart, perhaps elsewhere, may help.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType

import structlog

from engines.bundle.manifest import BundleError
from worker import __version__
from worker.cache import VerdictCache, connect
from worker.consumer import Consumer
from worker.engine import Engine, EngineLoader, EngineSlots, Role
from worker.errors import DeviceGone, Fatal, Retryable, WorkerError
from worker.fetch import Fetcher
from worker.health import DependencyWatch, HealthServer, Liveness, Readiness
from worker.intake import Mirror
from worker.messages import Renderer
from worker.metrics import Metrics
from worker.offsets import OffsetTracker
from worker.pipeline import JOIN_TIMEOUT_S, STAGE_THREADS, Pipeline
from worker.publish import Publisher, ShadowPublisher
from worker.rollout import THREAD_NAME as WATCH_THREAD
from worker.rollout import ReleasePoller, RolloutThread, announce
from worker.s3 import open_s3
from worker.settings import Settings
from worker.shadow import THREAD_NAME as SHADOW_THREAD
from worker.shadow import Shadow

EXIT_DRAINED = 0
EXIT_FATAL = 1
EXIT_UNFINISHED = 3
EXIT_DEVICE_LOST = 4
MAY_HANG = (*STAGE_THREADS, SHADOW_THREAD, WATCH_THREAD)


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
    """End the process at once if a stage still runs: Python's own end aborts under an engine that hangs."""
    stuck = [thread.name for thread in threading.enumerate() if thread.name in MAY_HANG]
    if stuck:
        structlog.get_logger().error("stage_stuck", threads=stuck)
        sys.stderr.flush()
        os._exit(status)


def build_fetcher(settings: Settings, abandon: threading.Event) -> Fetcher:
    """The fetcher that the settings describe."""
    store = open_s3(settings.fetch) if "s3" in settings.fetch.schemes else None
    return Fetcher(settings.fetch, settings.decode.max_bytes, abandon.wait, time.monotonic, store)


def _serve(settings: Settings, stop: threading.Event) -> int:
    metrics = Metrics()
    readiness = Readiness("bundle", "group", "kafka", "redis")
    liveness = Liveness(settings.health.stall_after_s, time.monotonic())
    health = _health_server(settings, liveness, readiness, metrics)
    health.start()
    log = structlog.get_logger()
    log.info("worker_starting", version=__version__, health_port=health.port)
    try:
        loader = EngineLoader(settings)
        engine = loader.first()
        readiness.set("bundle", None)
        announce(engine, metrics)
        return _work(settings, loader, engine, stop, liveness, readiness, metrics)
    finally:
        health.close()
        log.info("worker_stopped")


def _health_server(
    settings: Settings, liveness: Liveness, readiness: Readiness, metrics: Metrics
) -> HealthServer:
    host, port = settings.health.host, settings.health.port
    try:
        return HealthServer(
            host, port, lambda: liveness.problem(time.monotonic()), readiness.problems, metrics
        )
    except OSError as error:
        raise Fatal(
            f"cannot listen on {host}:{port} (health.host, health.port): {error.strerror}; "
            "port 0 picks a free one"
        ) from error


def _work(
    settings: Settings,
    loader: EngineLoader,
    engine: Engine,
    stop: threading.Event,
    liveness: Liveness,
    readiness: Readiness,
    metrics: Metrics,
) -> int:
    # Set when what is unfinished may be left: whatever waits for a dependency then gives up.
    abandon = threading.Event()
    slots = EngineSlots(engine, settings.engine.canary_share)
    cache = VerdictCache(connect(settings.redis), settings.redis)
    _refuse_refusing_cache(cache)
    tracker = OffsetTracker()
    publisher = Publisher(settings.kafka, settings.flow, cache, metrics, abandon.wait)
    with (
        _following(settings, loader, slots, metrics, abandon),
        _shadow(settings, slots, metrics) as mirror,
    ):
        pipeline = Pipeline(
            settings, slots, cache, build_fetcher(settings, abandon), publisher, mirror, tracker,
            liveness, metrics, time.monotonic, time.time,
        )  # fmt: skip
        loop = Consumer(
            settings.kafka, settings.topics, settings.flow, tracker, pipeline.take,
            pipeline.reject_unreadable, liveness, readiness, metrics, time.monotonic, stop,
            lambda: _told(pipeline.failure, readiness),
        )  # fmt: skip
        pipeline.start()
        _watch_dependencies(settings, cache, readiness, liveness, metrics, abandon)
        try:
            finished = loop.run()
        finally:
            abandon.set()
            pipeline.close()
    slots.close()
    if pipeline.failure is not None:
        raise pipeline.failure
    return EXIT_DRAINED if finished else EXIT_UNFINISHED


def _told(failure: Fatal | None, readiness: Readiness) -> Fatal | None:
    """The failure that must end this process; from then on it is not ready."""
    if failure is not None:
        readiness.set("engine", str(failure))
    return failure


def _watch_dependencies(
    settings: Settings,
    cache: VerdictCache,
    readiness: Readiness,
    liveness: Liveness,
    metrics: Metrics,
    abandon: threading.Event,
) -> None:
    DependencyWatch(
        settings.kafka.bootstrap_servers, cache.ping, readiness,
        lambda: liveness.progressed(time.monotonic()), metrics, abandon.wait,
        settings.health.dependency_check_s,
    ).start()  # fmt: skip


@contextmanager
def _shadow(settings: Settings, slots: EngineSlots, metrics: Metrics) -> Iterator[Mirror | None]:
    """What shows every image to the shadow, where there is to be one."""
    if not settings.engine.shadow:
        yield None
        return
    publisher = ShadowPublisher(settings.kafka, metrics)
    renderer = Renderer(
        settings, settings.kafka.shadow_topic, time.monotonic, lambda: datetime.now(UTC)
    )
    shadow = Shadow(settings, slots, renderer, publisher.send, metrics, time.monotonic)
    shadow.start()
    try:
        yield shadow.show
    finally:
        shadow.close()
        publisher.close()


@contextmanager
def _following(
    settings: Settings,
    loader: EngineLoader,
    slots: EngineSlots,
    metrics: Metrics,
    abandon: threading.Event,
) -> Iterator[None]:
    """Follow the channels, where there are any; canary and shadow have taken their slots on entry."""
    engine = settings.engine
    if engine.store is None:
        yield
        return
    roles: list[Role] = ["deciding"]
    roles += ["canary"] if engine.canary_share > 0 else []
    roles += ["shadow"] if engine.shadow else []
    followers = [
        ReleasePoller(
            role, loader, slots, metrics, time.monotonic, engine.retry_refused_s, abandon.is_set
        )
        for role in roles
    ]
    watch = RolloutThread(followers, abandon.wait, engine.poll_interval_s)
    # Before the first event, or the canary's contents would be decided by another after every start.
    watch.poll()
    watch.start()
    try:
        yield
    finally:
        abandon.set()
        watch.join(JOIN_TIMEOUT_S)


def _refuse_refusing_cache(cache: VerdictCache) -> None:
    """A wrong password ends the worker at its start; a cache that is away is waited for."""
    try:
        cache.ping()
    except Retryable as error:
        structlog.get_logger().warning("redis_away", error=str(error))


@contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT ask for a drain; the handlers before are put back afterwards."""

    def ask(number: int, _frame: FrameType | None) -> None:
        structlog.get_logger().info("signal", name=signal.Signals(number).name)
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
