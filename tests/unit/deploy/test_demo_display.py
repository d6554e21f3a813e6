"""The demo's display and its summary fit a terminal, however large the numbers."""

from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from deploy.embedded.demo.display import View, render
from deploy.embedded.demo.events import DemoEvent, OutgoingRecord
from deploy.embedded.demo.ledger import Accuracy, DemoDeadLetter, DemoVerdict, Ledger
from deploy.embedded.demo.report import BundleIdentity, DemoReport, LatencyPercentiles, show
from deploy.embedded.demo.workers import Scrape

EVENTS = 2000
CODES = (
    "malformed_json", "not_found", "sha256_mismatch", "too_many_pixels", "truncated",
    "unreachable", "unsupported_format",
)  # fmt: skip
RECORD = OutgoingRecord(b"key", b"value", ())


@pytest.fixture
def view() -> View:
    """The end of the largest demo."""
    ledger = Ledger(DemoEvent(str(n), f"e{n}", "bytes", "either", RECORD) for n in range(EVENTS))
    for number in range(EVENTS - len(CODES)):
        band = "allow" if number % 2 else "review"
        ledger.add(DemoVerdict("id", str(number), f"e{number}", band, 0.5, 98765.4, 12.3, "d"))
    for number, code in enumerate(CODES, start=EVENTS - len(CODES)):
        ledger.add(DemoDeadLetter(str(number), "decode", code))
    busy = Scrape(3, 1999, 256, 128, 1000, 16000, 1999, Counter(verdict=1999))
    return View(ledger, {"worker-1": busy, "worker-2": busy}, 3.0)


@pytest.mark.parametrize("columns", [80, 140])
def test_the_display_fits_a_terminal(view: View, columns: int) -> None:
    """80 columns and 24 rows: rich would cut off what does not fit."""
    console = Console(width=columns, force_terminal=True, color_system=None)
    with console.capture() as text:
        console.print(render(view))
    lines = text.get().splitlines()
    assert max(map(len, lines)) <= columns
    assert len(lines) <= 24
    assert lines[0].rstrip().endswith("2000 of 2000 events, 667 events/s, lag 3998")
    (head,) = [line for line in lines if line.startswith("worker ")]
    assert head.split()[-1] == "done"


@pytest.mark.parametrize("columns", [80, 140])
def test_the_summary_fits_a_terminal(columns: int) -> None:
    """The path of the report may be longer: nobody can copy a path that is cut in two."""
    latency = LatencyPercentiles(12345.6, 98765.4)
    report = DemoReport(
        published=EVENTS,
        verdicts=1993,
        dead_letters=7,
        lost=0,
        duplicates=0,
        events_per_s=667.0,
        bare_engine_events_per_s=700.0,
        latency_ms=latency,
        workers=16,
        accuracy=Accuracy(1993, 1900, 1000, 1000, 993, 900),
        bundle=BundleIdentity("reference", "0.7.0", "b" * 64),
        reconciled=False,
        problems=("12 events were sent twice, but the workers recognised 3 of them " * 2,),
        duplicate_events_sent=2,
        duplicate_events_recognised=2,
        latency_in_worker_ms=latency,
        verdicts_by_band={"allow": 993, "review": 1000, "block": 0},
        dead_letters_by_code=dict.fromkeys(CODES, 1),
        score_cache_hits=3,
        redis_verdicts=1993,
        share_of_bare_engine=0.95,
        stream_s=3.0,
        broker="tansu",
        worker_exit_statuses={"worker-1": 0},
    )
    console = Console(width=columns, force_terminal=True, color_system=None)
    with console.capture() as text:
        show(report, console, Path("/report.json"))
    lines = text.get().splitlines()
    assert max(map(len, lines)) <= columns
    assert "The counts do NOT add up: 2000 published" in text.get()
