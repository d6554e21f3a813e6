"""The book of the demo: what was sent, what came back, and whether that adds up.

In: the plan and every outcome that was read off the topics. Out: counts, and the differences.
Pure: no clock, no I/O.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from deploy.embedded.demo.events import Event

FLAGGED = frozenset({"review", "block"})


@dataclass(frozen=True)
class Verdict:
    """What the demo reads of a verdict."""

    verdict_id: str
    content_id: str
    event_id: str
    band: str
    score: float
    total_ms: float
    queued_ms: float
    model_name: str
    model_version: str
    bundle_sha256: str
    kind: Literal["verdict"] = field(default="verdict", init=False)


@dataclass(frozen=True)
class DeadLetter:
    """What the demo reads of a dead letter."""

    content_id: str
    stage: str
    code: str
    kind: Literal["dead_letter"] = field(default="dead_letter", init=False)


Outcome = Verdict | DeadLetter


@dataclass(frozen=True)
class Accuracy:
    """Labelled verdicts, and those whose band agrees: fake is flagged, real is allowed."""

    n: int
    correct: int
    fake_n: int
    fake_flagged: int
    real_n: int
    real_allowed: int


class Ledger:
    """Notes outcomes against the events they belong to."""

    def __init__(self, events: Iterable[Event]) -> None:
        """Open the book for these events."""
        self.events = {event.content_id: event for event in events}
        self.outcomes: dict[str, Outcome] = {}
        self.duplicates = 0
        self.bands: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self._strangers: list[str] = []

    def note(self, outcome: Outcome) -> None:
        """Enter one outcome; a second one of the same event is a duplicate."""
        event = self.events.get(outcome.content_id)
        if event is None or (isinstance(outcome, Verdict) and outcome.event_id != event.event_id):
            self._strangers.append(f"{outcome.kind} of {outcome.content_id}")
        elif outcome.content_id in self.outcomes:
            self.duplicates += 1
        else:
            self.outcomes[outcome.content_id] = outcome
            if isinstance(outcome, Verdict):
                self.bands[outcome.band] += 1
            else:
                self.codes[outcome.code] += 1

    @property
    def verdicts(self) -> list[Verdict]:
        """The first verdict of each event."""
        return [each for each in self.outcomes.values() if isinstance(each, Verdict)]

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The first dead letter of each event."""
        return [each for each in self.outcomes.values() if isinstance(each, DeadLetter)]

    @property
    def lost(self) -> int:
        """Events of which nothing has come back."""
        return len(self.events) - len(self.outcomes)

    def accuracy(self) -> Accuracy:
        """How the bands agree with the labels."""
        fakes = [each for each in self.verdicts if self.events[each.content_id].label == "fake"]
        reals = [each for each in self.verdicts if self.events[each.content_id].label == "real"]
        flagged = sum(each.band in FLAGGED for each in fakes)
        allowed = sum(each.band not in FLAGGED for each in reals)
        return Accuracy(
            len(fakes) + len(reals), flagged + allowed, len(fakes), flagged, len(reals), allowed
        )

    def problems(self) -> list[str]:
        """What does not add up; empty where everything does."""
        found = [f"an event that was never sent came back: {each}" for each in self._strangers]
        if self.lost:
            missing = [key for key in self.events if key not in self.outcomes]
            found.append(f"{self.lost} events came back as nothing: {', '.join(missing[:5])} ...")
        if self.duplicates:
            found.append(f"{self.duplicates} outcomes came twice")
        found += [
            problem
            for key, outcome in self.outcomes.items()
            if (problem := _mismatch(self.events[key], outcome))
        ]
        return found


def _mismatch(event: Event, outcome: Outcome) -> str | None:
    if event.expected not in ("either", outcome.kind):
        got = outcome.code if isinstance(outcome, DeadLetter) else outcome.band
        return f"{event.content_id} ({event.kind}) became a {outcome.kind} ({got})"
    if isinstance(outcome, DeadLetter) and event.code not in (None, outcome.code):
        return f"{event.content_id} ({event.kind}): code {outcome.code}, expected {event.code}"
    return None


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile; 0.0 of nothing."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]
