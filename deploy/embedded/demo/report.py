"""The demo's report: ``report.json`` for programs, a summary for people."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.embedded.demo.ledger import Accuracy


@dataclass(frozen=True)
class LatencyPercentiles:
    """Percentiles in milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True)
class BundleIdentity:
    """The detector that ran; ``sha256`` is the digest of its manifest."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class DemoReport:
    """The contents of ``report.json``.

    ``published`` counts distinct events; ``duplicate_events_sent`` are extra and must lead to no outcome.
    ``latency_ms`` runs from the record's timestamp to the publish; ``latency_in_worker_ms`` excludes the wait
    on the topic, which a burst makes long.
    """

    published: int
    verdicts: int
    dead_letters: int
    lost: int
    duplicates: int
    events_per_s: float
    bare_engine_events_per_s: float
    latency_ms: LatencyPercentiles
    workers: int
    accuracy: Accuracy
    bundle: BundleIdentity
    reconciled: bool
    problems: tuple[str, ...]
    duplicate_events_sent: int
    duplicate_events_recognised: int
    latency_in_worker_ms: LatencyPercentiles
    verdicts_by_band: dict[str, int]
    dead_letters_by_code: dict[str, int]
    score_cache_hits: int
    redis_verdicts: int
    share_of_bare_engine: float
    stream_s: float
    broker: str
    worker_exit_statuses: dict[str, int | None]

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)


def show(report: DemoReport, console: Console, path: Path) -> None:
    """Print a summary and the path of the report."""
    table = Table(title="Result", title_justify="left", show_header=False, min_width=72)
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in _rows(report):
        table.add_row(name, value)
    console.print(table)
    for problem in report.problems:
        console.print(f"  {problem}", style="red", markup=False, soft_wrap=not console.is_terminal)
    verdict = "Everything adds up" if report.reconciled else "The counts do NOT add up"
    console.print(
        f"{verdict}: {report.published} published = {report.verdicts} verdicts + "
        f"{report.dead_letters} dead letters + {report.lost} lost; {report.duplicates} duplicates.",
        style="green" if report.reconciled else "red",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )
    console.print(f"Report: {path}", highlight=False, soft_wrap=True)


def _rows(report: DemoReport) -> list[tuple[str, str]]:
    accuracy = report.accuracy
    bands = ", ".join(f"{band} {count}" for band, count in report.verdicts_by_band.items())
    codes = ", ".join(f"{code} {count}" for code, count in report.dead_letters_by_code.items())
    return [
        ("verdicts", bands),
        ("dead letters", codes),
        (
            "duplicate events sent, recognised",
            f"{report.duplicate_events_sent}, {report.duplicate_events_recognised}",
        ),
        ("verdicts in Redis", str(report.redis_verdicts)),
        ("score cache hits", str(report.score_cache_hits)),
        (
            "generated flagged, real allowed",
            f"{accuracy.fake_flagged}/{accuracy.fake_n}, {accuracy.real_allowed}/{accuracy.real_n}",
        ),
        ("latency p50, p99", f"{report.latency_ms.p50:.0f}, {report.latency_ms.p99:.0f} ms"),
        (
            "of that, in the worker",
            f"{report.latency_in_worker_ms.p50:.0f}, {report.latency_in_worker_ms.p99:.0f} ms",
        ),
        (f"{report.workers} workers", f"{report.events_per_s:.0f} events/s"),
        ("bare engine, as many processes", f"{report.bare_engine_events_per_s:.0f} events/s"),
        ("the workers reached", f"{report.share_of_bare_engine:.0%} of the bare engine"),
        ("bundle", f"{report.bundle.name} {report.bundle.version} {report.bundle.sha256[:12]}"),
    ]
