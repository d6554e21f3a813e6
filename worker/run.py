"""``python -m worker run``: assemble one worker, run it until a signal, drain.

Exit status: 0 drained; 1 a fatal error (logged); 3 drained in part, the rest will be redelivered.
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

from engines.keys import read_trust
from engines.manifest import BundleError
from engines.verify import Bundle, load_bundle
from worker import __version__
from worker.cache import VerdictCache, connect
from worker.commit import OffsetTracker
from worker.consume import ConsumeLoop
from worker.errors import Fatal, Retryable, WorkerError
from worker.fetch import Fetcher
from worker.health import DependencyWatch, HealthServer, Liveness, Readiness
from worker.metrics import Metrics
from worker.object_store import open_object_store
from worker.pipeline import STAGE_THREADS, Pipeline
from worker.publish import Publisher
from worker.render import engine_id
from worker.settings import Settings

EXIT_DRAINED = 0
EXIT_FATAL = 1
EXIT_UNFINISHED = 3


def run_worker(settings: Settings) -> int:
    """Run one worker; returns the exit status."""
    log = structlog.get_logger()
    stop = threading.Event()
    with _signals_set(stop):
        try:
            status = _serve(settings, stop)
        except (WorkerError, BundleError) as error:
            log.error("worker_failed", error=str(error), kind=type(error).__name__)  # noqa: TRY400 (a message, not a trace)
            status = EXIT_FATAL
    _leave_stuck_threads(status)
    return status


def _leave_stuck_threads(status: int) -> None:
    """End the process at once if a stage still runs: Python's own end aborts under an engine that hangs."""
    stuck = [thread.name for thread in threading.enumerate() if thread.name in STAGE_THREADS]
    if stuck:
        structlog.get_logger().error("stage_stuck", threads=stuck)
        sys.stderr.flush()
        os._exit(status)


def load_engine(settings: Settings) -> Bundle:
    """The bundle that the settings name, verified.

    Raises:
        BundleError: No trusted key signed it, its files or its golden outputs differ from its
            manifest, or there is none.
    """
    engine = settings.engine
    trust = read_trust(engine.trusted_keys, allow_unsigned=engine.allow_unsigned)
    bundle = load_bundle(
        engine.bundle,
        runtime=engine.runtime,
        threads=engine.threads,
        trust=trust,
        device=engine.device,
    )
    if engine.allow_unsigned:
        structlog.get_logger().warning(
            "UNSIGNED_BUNDLES_ALLOWED",
            bundle=str(engine.bundle),
            signed_by=bundle.signed_by,
            advice="whoever can write the bundle can run code here; set engine.trusted_keys, "
            "and leave engine.allow_unsigned to development",
        )
    # An unknown threshold set must stop the start, not the first event.
    bundle.manifest.threshold_set(settings.decide.threshold_set)
    return bundle


def build_fetcher(settings: Settings, abandon: threading.Event) -> Fetcher:
    """The fetcher that the settings describe."""
    store = open_object_store(settings.fetch) if "s3" in settings.fetch.schemes else None
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
        bundle = load_engine(settings)
        readiness.set("bundle", None)
        _announce(bundle, metrics)
        return _work(settings, bundle, stop, liveness, readiness, metrics)
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


def _announce(bundle: Bundle, metrics: Metrics) -> None:
    manifest, runtime = bundle.manifest, bundle.runtime
    identity = {
        "name": manifest.name,
        "version": manifest.version,
        "runtime": runtime.name,
        "precision": runtime.precision,
        "engine_sha256": runtime.engine_sha256,
        "bundle_sha256": bundle.sha256,
        "signed_by": bundle.signed_by or "unsigned",
    }
    metrics.engine.info(identity)
    structlog.get_logger().info(
        "bundle_verified", golden_max_difference=bundle.golden_max_difference, **identity
    )


def _work(
    settings: Settings,
    bundle: Bundle,
    stop: threading.Event,
    liveness: Liveness,
    readiness: Readiness,
    metrics: Metrics,
) -> int:
    # Set when what is unfinished may be left: whatever waits for a dependency then gives up.
    abandon = threading.Event()
    cache = VerdictCache(connect(settings.redis), settings.redis, engine_id(bundle))
    _refuse_refusing_cache(cache)
    tracker = OffsetTracker()
    publisher = Publisher(settings.kafka, settings.flow, cache, metrics, abandon.wait)
    fetcher = build_fetcher(settings, abandon)
    pipeline = Pipeline(
        settings, bundle, cache, fetcher, publisher, tracker, liveness, metrics,
        time.monotonic, time.time,
    )  # fmt: skip
    loop = ConsumeLoop(
        settings.kafka, settings.flow, tracker, pipeline.take, pipeline.reject_unreadable, liveness, readiness, metrics,
        time.monotonic, stop, lambda: pipeline.failure,
    )  # fmt: skip
    watch = DependencyWatch(
        settings.kafka.bootstrap_servers, cache.ping, readiness,
        lambda: liveness.progressed(time.monotonic()), metrics, abandon.wait,
        settings.health.dependency_check_s,
    )  # fmt: skip
    pipeline.start()
    watch.start()
    try:
        finished = loop.run()
    finally:
        abandon.set()
        pipeline.close()
        bundle.runtime.close()
    if pipeline.failure is not None:
        raise Fatal(str(pipeline.failure)) from pipeline.failure
    return EXIT_DRAINED if finished else EXIT_UNFINISHED


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
