"""The demo's ledger: events sent, outcomes received, and whether they match. No clock and no I/O."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from deploy.embedded.demo.events import DemoEvent

FLAGGED = frozenset({"review", "block"})


@dataclass(frozen=True)
class DemoVerdict:
    """The fields of a verdict that the demo uses."""

    verdict_id: str
    content_id: str
    event_id: str
    band: str
    score: float
    total_ms: float
    queued_ms: float
    bundle_sha256: str
    kind: Literal["verdict"] = field(default="verdict", init=False)


@dataclass(frozen=True)
class DemoDeadLetter:
    """The fields of a dead letter that the demo uses."""

    content_id: str
    stage: str
    code: str
    kind: Literal["dead_letter"] = field(default="dead_letter", init=False)


Outcome = DemoVerdict | DemoDeadLetter


@dataclass(frozen=True)
class Accuracy:
    """Counts of labelled verdicts, and of those whose band is right: fake flagged, real allowed."""

    n: int
    correct: int
    fake_n: int
    fake_flagged: int
    real_n: int
    real_allowed: int


class Ledger:
    """Assigns outcomes to events."""

    def __init__(self, events: Iterable[DemoEvent]) -> None:
        """Start with these events and no outcome."""
        self.events = {event.content_id: event for event in events}
        self.outcomes: dict[str, Outcome] = {}
        self.duplicates = 0
        self.bands: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self._unknown: list[str] = []

    def add(self, outcome: Outcome) -> None:
        """Add one outcome; a second one for the same event is a duplicate."""
        event = self.events.get(outcome.content_id)
        if event is None or (
            isinstance(outcome, DemoVerdict) and outcome.event_id != event.event_id
        ):
            self._unknown.append(f"{outcome.kind} of {outcome.content_id}")
        elif outcome.content_id in self.outcomes:
            self.duplicates += 1
        else:
            self.outcomes[outcome.content_id] = outcome
            if isinstance(outcome, DemoVerdict):
                self.bands[outcome.band] += 1
            else:
                self.codes[outcome.code] += 1

    @property
    def verdicts(self) -> list[DemoVerdict]:
        """The first verdict of each event."""
        return [outcome for outcome in self.outcomes.values() if isinstance(outcome, DemoVerdict)]

    @property
    def dead_letters(self) -> list[DemoDeadLetter]:
        """The first dead letter of each event."""
        return [
            outcome for outcome in self.outcomes.values() if isinstance(outcome, DemoDeadLetter)
        ]

    @property
    def lost(self) -> int:
        """Events without an outcome."""
        return len(self.events) - len(self.outcomes)

    def accuracy(self) -> Accuracy:
        """How well the bands match the labels."""
        fakes, reals = (
            [verdict for verdict in self.verdicts if self.events[verdict.content_id].label == label]
            for label in ("fake", "real")
        )
        flagged = sum(verdict.band in FLAGGED for verdict in fakes)
        allowed = sum(verdict.band not in FLAGGED for verdict in reals)
        return Accuracy(
            len(fakes) + len(reals), flagged + allowed, len(fakes), flagged, len(reals), allowed
        )

    def problems(self) -> list[str]:
        """Everything that does not match; empty if all is well."""
        problems = [f"outcome of an event that was not sent: {name}" for name in self._unknown]
        if self.lost:
            missing = [key for key in self.events if key not in self.outcomes]
            problems.append(f"{self.lost} events have no outcome: {', '.join(missing[:5])} ...")
        if self.duplicates:
            problems.append(f"{self.duplicates} events have a second outcome")
        problems += [
            problem
            for key, outcome in self.outcomes.items()
            if (problem := _mismatch(self.events[key], outcome))
        ]
        return problems


def _mismatch(event: DemoEvent, outcome: Outcome) -> str | None:
    if event.expected not in ("either", outcome.kind):
        got = outcome.code if isinstance(outcome, DemoDeadLetter) else outcome.band
        return f"{event.content_id} ({event.kind}) became a {outcome.kind} ({got})"
    if isinstance(outcome, DemoDeadLetter) and event.code not in (None, outcome.code):
        return f"{event.content_id} ({event.kind}): code {outcome.code}, expected {event.code}"
    return None


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile; 0.0 if there are no values."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]
