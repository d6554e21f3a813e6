"""The demo from start to end: servers, bare engine, workers, events, report, clean-up.

Raises :class:`DemoError`, ``ServiceError`` or ``BundleError``, whose messages say what to do.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redis import Redis
from rich.console import Console

from deploy.embedded.demo.bare import BareResult, time_bare_engine
from deploy.embedded.demo.display import Display, View
from deploy.embedded.demo.events import (
    BrokenImage,
    TrafficPlan,
    broken_images,
    distinct_pictures_for,
    make_plan,
)
from deploy.embedded.demo.fileserver import DeadHost, FileServer
from deploy.embedded.demo.ledger import Ledger, percentile
from deploy.embedded.demo.pictures import DemoPicture, folder_pictures, sample_pictures
from deploy.embedded.demo.report import BundleIdentity, DemoReport, LatencyPercentiles
from deploy.embedded.demo.traffic import OutcomeReader, RecordSender, Topics, parse_verdict
from deploy.embedded.demo.workers import Fleet, Tuning, WorkerSetup, start_worker
from deploy.embedded.services import Server, tansu_broker, valkey_cache
from deploy.embedded.topics import create_topics
from deploy.kafka.broker import kafka_broker
from engines.bundle.manifest import Manifest, manifest_sha256
from engines.bundle.verify import verify_files

PARTITIONS_PER_WORKER = 3
DRAIN_TIMEOUT_S = 15.0
READ_S = 0.05
STALL_S = 30.0  # without an outcome for this long, the rest will not come
DUPLICATES_TIMEOUT_S = 10.0
QUIET_READS = 5
DEFAULT_EVENTS = 500
BROKERS: dict[str, Callable[[Path], Server]] = {"tansu": tansu_broker, "kafka": kafka_broker}


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    bundle: Path
    output: Path
    images: Path | None = None
    broker: Literal["tansu", "kafka"] = "tansu"
    events: int = DEFAULT_EVENTS
    workers: int = 2


@dataclass(frozen=True)
class Streamed:
    """Seconds until the last event had its outcome, and what the workers counted."""

    duration_s: float
    worker_events: Counter[str]
    cache_hits: int


@dataclass(frozen=True)
class _Measured:
    """The results of a run, apart from the ledger."""

    bare: BareResult
    streamed: Streamed
    statuses: dict[str, int | None]
    redis_verdicts: int


def run_demo(options: Options, console: Console) -> DemoReport:
    """Run the demo; the report is written whether or not it adds up."""
    manifest = verify_files(options.bundle)
    _clean(options.output)
    with ExitStack() as stack:
        server = stack.enter_context(FileServer())
        dead_host = stack.enter_context(DeadHost())
        broken = broken_images(f"{server.base}/missing.jpg", dead_host.uri)
        console.print("Preparing the images ...", highlight=False)
        pictures = _pictures(options, len(broken))
        if options.images is not None and len(pictures) == options.events:
            console.print(f"The first {len(pictures)} images; --events takes more.")
        plan = _plan(options, pictures, broken, server)
        ledger = Ledger(plan.events)
        measured = _measure(options, console, plan, pictures, ledger, stack)
    report = _report(options, manifest, plan, ledger, measured)
    report.write(options.output / "report.json")
    return report


def _clean(output: Path) -> None:
    """Remove the files of an earlier run, and nothing else."""
    for name in ("images", "bare", "broker", "cache"):
        shutil.rmtree(output / name, ignore_errors=True)
    for log in output.glob("worker-*.log"):
        log.unlink()
    (output / "report.json").unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)


def _pictures(options: Options, fault_count: int) -> list[DemoPicture]:
    if options.images is not None:
        return folder_pictures(options.images, options.events)
    count = distinct_pictures_for(options.events, fault_count)
    return sample_pictures(options.output / "images", count)


def _plan(
    options: Options,
    pictures: list[DemoPicture],
    broken: tuple[BrokenImage, ...],
    server: FileServer,
) -> TrafficPlan:
    # A user's own files may be broken: then a dead letter is the right outcome.
    expected: Literal["verdict", "either"] = "verdict" if options.images is None else "either"
    return make_plan(pictures, broken, serve=server.uri, expected=expected)


def _measure(
    options: Options,
    console: Console,
    plan: TrafficPlan,
    pictures: list[DemoPicture],
    ledger: Ledger,
    stack: ExitStack,
) -> _Measured:
    broker = BROKERS[options.broker](options.output / "broker")
    cache = valkey_cache(options.output / "cache")
    console.print(f"Starting {broker.name} and {cache.name} ...", highlight=False)
    stack.enter_context(broker)
    stack.enter_context(cache)
    tuning, topics = Tuning(), Topics()
    console.print(
        f"Timing the bare engine: {len(pictures)} images, {options.workers} processes ...",
        highlight=False,
    )
    bare = time_bare_engine(
        options.bundle,
        [picture.path for picture in pictures],
        processes=options.workers,
        tuning=tuning,
        directory=options.output / "bare",
    )
    partitions = PARTITIONS_PER_WORKER * options.workers
    names = (topics.uploaded, topics.verdicts, topics.dead_letters)
    create_topics(broker.address, dict.fromkeys(names, partitions))
    redis_url = f"redis://{cache.address}/0"
    file_root = options.images.resolve() if options.images else options.output / "images"
    setup = WorkerSetup(
        broker.address, redis_url, options.bundle.resolve(), file_root, topics, tuning
    )
    console.print(f"Starting {options.workers} workers ...", highlight=False)
    fleet = _fleet(options, setup, stack)
    fleet.wait_until_ready(partitions)
    console.print(f"Publishing {len(plan.sends)} records ...", highlight=False)
    sender = RecordSender(broker.address, topics.uploaded, plan.sends)
    stack.callback(sender.close)
    with OutcomeReader(broker.address, topics, partitions) as reader:
        with Display(console) as display:
            streamed = _stream(plan, ledger, fleet, sender, reader, display)
        statuses = fleet.drain(DRAIN_TIMEOUT_S)
        _read_the_rest(ledger, reader)
    return _Measured(bare, streamed, statuses, _count_in_redis(redis_url, ledger))


def _stream(
    plan: TrafficPlan,
    ledger: Ledger,
    fleet: Fleet,
    sender: RecordSender,
    reader: OutcomeReader,
    display: Display,
) -> Streamed:
    """Send all records and collect outcomes until every event has one, or no more arrive."""
    sender.start()
    started_s = time.monotonic()
    last_s = started_s
    while ledger.lost and time.monotonic() - last_s < STALL_S:
        fleet.check()
        sender.raise_error()
        outcomes = reader.read(READ_S)
        for outcome in outcomes:
            ledger.add(outcome)
        now_s = time.monotonic()
        last_s = now_s if outcomes else last_s
        display.show(View(ledger, fleet.scrapes(), now_s - started_s))
    _await_duplicates(plan, fleet)
    display.show(View(ledger, fleet.scrapes(), last_s - started_s))
    hits = sum(scrape.cache_hits for scrape in fleet.scrapes().values() if scrape)
    return Streamed(last_s - started_s, fleet.events(), hits)


def _read_the_rest(ledger: Ledger, reader: OutcomeReader) -> None:
    """Read what is left once the workers have ended: each would be a second outcome."""
    quiet = 0
    while quiet < QUIET_READS:
        outcomes = reader.read(READ_S)
        quiet = 0 if outcomes else quiet + 1
        for outcome in outcomes:
            ledger.add(outcome)


def _await_duplicates(plan: TrafficPlan, fleet: Fleet) -> None:
    """Wait until the workers have counted the second copies, which lead to no outcome."""
    deadline_s = time.monotonic() + DUPLICATES_TIMEOUT_S
    while fleet.events().total() < len(plan.sends) and time.monotonic() < deadline_s:
        fleet.check()
        time.sleep(READ_S)


def _fleet(options: Options, setup: WorkerSetup, stack: ExitStack) -> Fleet:
    workers = []
    for number in range(1, options.workers + 1):
        worker = start_worker(number, setup, options.output)
        stack.callback(worker.child.kill)
        workers.append(worker)
    fleet = Fleet(workers)
    stack.callback(fleet.stop_watching)
    return fleet


def _count_in_redis(redis_url: str, ledger: Ledger) -> int:
    """For how many verdicts of the topic Redis holds the same verdict."""
    verdicts = ledger.verdicts
    if not verdicts:
        return 0
    with Redis.from_url(redis_url) as client:
        stored = client.mget([f"synthgate:verdict:{verdict.content_id}" for verdict in verdicts])
    return sum(
        document is not None and parse_verdict(document) == verdict
        for document, verdict in zip(stored, verdicts, strict=True)
    )


def _report(
    options: Options, manifest: Manifest, plan: TrafficPlan, ledger: Ledger, measured: _Measured
) -> DemoReport:
    bundle = BundleIdentity(manifest.name, manifest.version, manifest_sha256(options.bundle))
    problems = _problems(plan, ledger, measured, bundle)
    verdicts, streamed = ledger.verdicts, measured.streamed
    events_per_s = len(ledger.outcomes) / streamed.duration_s if streamed.duration_s else 0.0
    # Repeated bytes cost the bare engine nothing, as they cost the workers nothing.
    good = sum(event.sha256 is not None for event in plan.events)
    distinct = len({event.sha256 for event in plan.events if event.sha256 is not None})
    bare_per_s = measured.bare.images_per_s * good / max(1, distinct)
    return DemoReport(
        published=len(plan.events),
        verdicts=len(verdicts),
        dead_letters=len(ledger.dead_letters),
        lost=ledger.lost,
        duplicates=ledger.duplicates,
        events_per_s=round(events_per_s, 1),
        bare_engine_events_per_s=round(bare_per_s, 1),
        latency_ms=_latency([verdict.total_ms for verdict in verdicts]),
        workers=options.workers,
        accuracy=ledger.accuracy(),
        bundle=bundle,
        reconciled=not problems,
        problems=tuple(problems),
        duplicate_events_sent=plan.duplicate_sends,
        duplicate_events_recognised=streamed.worker_events["duplicate"],
        latency_in_worker_ms=_latency(
            [verdict.total_ms - verdict.queued_ms for verdict in verdicts]
        ),
        verdicts_by_band={band: ledger.bands[band] for band in ("allow", "review", "block")},
        dead_letters_by_code=dict(sorted(ledger.codes.items())),
        score_cache_hits=streamed.cache_hits,
        redis_verdicts=measured.redis_verdicts,
        share_of_bare_engine=round(events_per_s / bare_per_s, 3) if bare_per_s else 0.0,
        stream_s=round(streamed.duration_s, 3),
        broker=options.broker,
        worker_exit_statuses=measured.statuses,
    )


def _problems(
    plan: TrafficPlan, ledger: Ledger, measured: _Measured, bundle: BundleIdentity
) -> list[str]:
    problems = ledger.problems()
    recognised = measured.streamed.worker_events["duplicate"]
    if recognised != plan.duplicate_sends:
        problems.append(
            f"{plan.duplicate_sends} events were sent twice, but the workers recognised {recognised}"
        )
    if measured.redis_verdicts != len(ledger.verdicts):
        problems.append(
            f"Redis holds {measured.redis_verdicts} of the {len(ledger.verdicts)} verdicts"
        )
    digests = {verdict.bundle_sha256 for verdict in ledger.verdicts}
    if digests - {bundle.sha256}:
        problems.append(f"verdicts name bundles other than {bundle.sha256}: {sorted(digests)}")
    for name, status in measured.statuses.items():
        if status != 0:
            problems.append(f"{name} did not drain: exit status {status}, expected 0")
    return problems


def _latency(values_ms: list[float]) -> LatencyPercentiles:
    p50, p99 = (round(percentile(values_ms, percent), 1) for percent in (50, 99))
    return LatencyPercentiles(p50, p99)
