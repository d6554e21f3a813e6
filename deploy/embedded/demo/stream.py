"""The stream itself: send everything, watch until every event has an outcome, and look for seconds.

In: running workers and a plan. Out: :class:`Streamed`. Errors: :class:`DemoError` where a worker
ends, the broker refuses, or nothing moves any more.
"""

import time
from collections import Counter
from dataclasses import dataclass

from deploy.embedded.demo.display import Display, View
from deploy.embedded.demo.events import Plan
from deploy.embedded.demo.ledger import Ledger
from deploy.embedded.demo.traffic import OutcomeReader, Sender
from deploy.embedded.demo.workers import Fleet

READ_S = 0.05
STALL_S = 30.0  # no outcome for so long: the rest will not come
DUPLICATES_TIMEOUT_S = 10.0
QUIET_READS = 5


@dataclass(frozen=True)
class Streamed:
    """How long it took until the last event had its outcome, and what the workers counted."""

    duration_s: float
    worker_events: Counter[str]
    cache_hits: int


def stream(
    plan: Plan,
    ledger: Ledger,
    fleet: Fleet,
    sender: Sender,
    reader: OutcomeReader,
    display: Display,
) -> Streamed:
    """Send all and note what comes back, until nothing is missing or nothing comes any more."""
    sender.start()
    started_s = time.monotonic()
    last_s = started_s
    while ledger.lost and time.monotonic() - last_s < STALL_S:
        fleet.check()
        sender.raise_error()
        outcomes = reader.read(READ_S)
        for outcome in outcomes:
            ledger.note(outcome)
        now_s = time.monotonic()
        last_s = now_s if outcomes else last_s
        display.show(View(ledger, fleet.scrapes(), now_s - started_s))
    _await_duplicates(plan, fleet)
    display.show(View(ledger, fleet.scrapes(), last_s - started_s))
    hits = sum(each.cache_hits for each in fleet.scrapes().values() if each)
    return Streamed(last_s - started_s, fleet.events(), hits)


def read_the_rest(ledger: Ledger, reader: OutcomeReader) -> None:
    """Once the workers have ended: whatever else is on the topics would be a second outcome."""
    quiet = 0
    while quiet < QUIET_READS:
        outcomes = reader.read(READ_S)
        quiet = 0 if outcomes else quiet + 1
        for outcome in outcomes:
            ledger.note(outcome)


def _await_duplicates(plan: Plan, fleet: Fleet) -> None:
    """The second copies lead to nothing that could be read: wait until the workers counted them."""
    deadline_s = time.monotonic() + DUPLICATES_TIMEOUT_S
    while fleet.events().total() < len(plan.sends) and time.monotonic() < deadline_s:
        fleet.check()
        time.sleep(READ_S)
