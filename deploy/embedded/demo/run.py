"""The demo from start to end: servers, bare engine, workers, stream, reckoning; and all of it away.

In: :class:`Options`. Out: a :class:`~deploy.embedded.demo.report.Report`.
Errors: :class:`DemoError`, ``ServiceError``, ``BundleError``: each says what to do.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redis import Redis
from rich.console import Console

from deploy.embedded.demo import report as reckoning
from deploy.embedded.demo.bare import BareResult, time_bare_engine
from deploy.embedded.demo.display import Display
from deploy.embedded.demo.events import Plan, distinct_pictures_for, make_plan
from deploy.embedded.demo.faults import Fault, faults
from deploy.embedded.demo.fileserver import DeadHost, FileServer
from deploy.embedded.demo.ledger import Ledger, percentile
from deploy.embedded.demo.pictures import Picture, folder_pictures, sample_pictures
from deploy.embedded.demo.stream import Streamed, read_the_rest, stream
from deploy.embedded.demo.traffic import OutcomeReader, Sender, Topics, parse_verdict
from deploy.embedded.demo.workers import Fleet, Surroundings, Tuning, start_worker
from deploy.embedded.services import Server, tansu_broker, valkey_cache
from deploy.embedded.topics import create_topics
from deploy.kafka.broker import kafka_broker
from engines.bundle.manifest import Manifest, manifest_sha256
from engines.bundle.verify import verify_files

PARTITIONS_PER_WORKER = 3
DRAIN_TIMEOUT_S = 15.0
DEFAULT_EVENTS = 500
BROKERS: dict[str, Callable[[Path], Server]] = {"tansu": tansu_broker, "kafka": kafka_broker}


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    bundle: Path
    output: Path
    images: Path | None = None
    broker: Literal["tansu", "kafka"] = "tansu"
    events: int = DEFAULT_EVENTS
    workers: int = 2


@dataclass(frozen=True)
class _Measured:
    """What the run yields beside the ledger."""

    bare: BareResult
    streamed: Streamed
    statuses: dict[str, int | None]
    redis_verdicts: int


def run_demo(options: Options, console: Console) -> reckoning.Report:
    """Run it; the report is written whether or not it adds up."""
    manifest = verify_files(options.bundle)
    _clean(options.output)
    with ExitStack() as stack:
        server = stack.enter_context(FileServer())
        dead_host = stack.enter_context(DeadHost())
        broken = faults(f"{server.base}/missing.jpg", dead_host.uri)
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
    """Remove what an earlier run left, and nothing else."""
    for name in ("images", "bare", "broker", "cache"):
        shutil.rmtree(output / name, ignore_errors=True)
    for log in output.glob("worker-*.log"):
        log.unlink()
    (output / "report.json").unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)


def _pictures(options: Options, fault_count: int) -> list[Picture]:
    if options.images is not None:
        return folder_pictures(options.images, options.events)
    count = distinct_pictures_for(options.events, fault_count)
    return sample_pictures(options.output / "images", count)


def _plan(
    options: Options, pictures: list[Picture], broken: tuple[Fault, ...], server: FileServer
) -> Plan:
    # A person's own files may be broken themselves: then a dead letter is the right outcome.
    expected: Literal["verdict", "either"] = "verdict" if options.images is None else "either"
    return make_plan(pictures, broken, serve=server.uri, expected=expected)


def _measure(
    options: Options,
    console: Console,
    plan: Plan,
    pictures: list[Picture],
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
    around = Surroundings(
        broker.address, redis_url, options.bundle.resolve(), file_root, topics, tuning
    )
    console.print(f"Starting {options.workers} workers ...", highlight=False)
    fleet = _fleet(options, around, stack)
    fleet.wait_until_ready(partitions)
    console.print(f"Publishing {len(plan.sends)} records ...", highlight=False)
    sender = Sender(broker.address, topics.uploaded, plan.sends)
    stack.callback(sender.close)
    with OutcomeReader(broker.address, topics, partitions) as reader:
        with Display(console) as display:
            streamed = stream(plan, ledger, fleet, sender, reader, display)
        statuses = fleet.drain(DRAIN_TIMEOUT_S)
        read_the_rest(ledger, reader)
    return _Measured(bare, streamed, statuses, _count_in_redis(redis_url, ledger))


def _fleet(options: Options, around: Surroundings, stack: ExitStack) -> Fleet:
    workers = []
    for number in range(1, options.workers + 1):
        worker = start_worker(number, around, options.output)
        stack.callback(worker.child.kill)
        workers.append(worker)
    fleet = Fleet(workers)
    stack.callback(fleet.stop_watching)
    return fleet


def _count_in_redis(redis_url: str, ledger: Ledger) -> int:
    """For how many verdicts of the topic Redis holds the very same one."""
    verdicts = ledger.verdicts
    if not verdicts:
        return 0
    with Redis.from_url(redis_url) as client:
        stored = client.mget([f"synthgate:verdict:{each.content_id}" for each in verdicts])
    return sum(
        document is not None and parse_verdict(document) == verdict
        for document, verdict in zip(stored, verdicts, strict=True)
    )


def _report(
    options: Options, manifest: Manifest, plan: Plan, ledger: Ledger, measured: _Measured
) -> reckoning.Report:
    bundle = reckoning.BundleIdentity(
        manifest.name, manifest.version, manifest_sha256(options.bundle)
    )
    problems = _problems(plan, ledger, measured, bundle)
    verdicts, streamed = ledger.verdicts, measured.streamed
    events_per_s = len(ledger.outcomes) / streamed.duration_s if streamed.duration_s else 0.0
    # The bare engine answers repeated bytes from memory, as the workers do: at no cost.
    good = sum(event.sha256 is not None for event in plan.events)
    distinct = len({event.sha256 for event in plan.events if event.sha256 is not None})
    bare_per_s = measured.bare.images_per_s * good / max(1, distinct)
    return reckoning.Report(
        published=len(plan.events),
        verdicts=len(verdicts),
        dead_letters=len(ledger.dead_letters),
        lost=ledger.lost,
        duplicates=ledger.duplicates,
        events_per_s=round(events_per_s, 1),
        bare_engine_events_per_s=round(bare_per_s, 1),
        latency_ms=_latency([each.total_ms for each in verdicts]),
        workers=options.workers,
        accuracy=ledger.accuracy(),
        bundle=bundle,
        reconciled=not problems,
        problems=tuple(problems),
        duplicate_events_sent=plan.duplicate_sends,
        duplicate_events_recognised=streamed.worker_events["duplicate"],
        latency_in_worker_ms=_latency([each.total_ms - each.queued_ms for each in verdicts]),
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
    plan: Plan, ledger: Ledger, measured: _Measured, bundle: reckoning.BundleIdentity
) -> list[str]:
    problems = ledger.problems()
    recognised = measured.streamed.worker_events["duplicate"]
    if recognised != plan.duplicate_sends:
        problems.append(
            f"{plan.duplicate_sends} events were sent twice, the workers recognised {recognised}"
        )
    if measured.redis_verdicts != len(ledger.verdicts):
        problems.append(
            f"Redis holds {measured.redis_verdicts} of the {len(ledger.verdicts)} verdicts"
        )
    spoke = {each.bundle_sha256 for each in ledger.verdicts}
    if spoke - {bundle.sha256}:
        problems.append(f"verdicts name another bundle than {bundle.sha256}: {sorted(spoke)}")
    for name, status in measured.statuses.items():
        if status != 0:
            problems.append(f"{name} did not drain: exit status {status}, expected 0")
    return problems


def _latency(values_ms: list[float]) -> reckoning.LatencyMs:
    p50, p99 = (round(percentile(values_ms, percent), 1) for percent in (50, 99))
    return reckoning.LatencyMs(p50, p99)
