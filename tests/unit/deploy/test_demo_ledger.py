"""The ledger reports a problem unless every event has exactly one expected outcome."""

import pytest

from deploy.embedded.demo.events import DemoEvent, OutgoingRecord
from deploy.embedded.demo.ledger import DemoDeadLetter, DemoVerdict, Ledger, percentile

WIRE = OutgoingRecord(b"key", b"value", ())


def good(content_id: str, label: str | None = None) -> DemoEvent:
    """An event that must become a verdict."""
    known = label if label in ("real", "fake") else None
    return DemoEvent(content_id, f"event-{content_id}", "bytes", "verdict", WIRE, label=known)  # type: ignore[arg-type]


def broken(content_id: str, code: str = "truncated") -> DemoEvent:
    """An event that must become a dead letter."""
    return DemoEvent(content_id, f"event-{content_id}", "truncated", "dead_letter", WIRE, code=code)


def verdict(content_id: str, band: str = "allow", event_id: str | None = None) -> DemoVerdict:
    """A verdict of that event."""
    event_id = event_id or f"event-{content_id}"
    return DemoVerdict("id", content_id, event_id, band, 0.1, 10.0, 4.0, "0" * 64)


def test_every_event_with_one_right_outcome_adds_up() -> None:
    """Verdicts and dead letters, each expected, leave no problem."""
    ledger = Ledger([good("a"), broken("b")])
    ledger.add(verdict("a"))
    ledger.add(DemoDeadLetter("b", "decode", "truncated"))
    assert ledger.problems() == []
    assert (len(ledger.verdicts), len(ledger.dead_letters), ledger.lost) == (1, 1, 0)


def test_a_lost_event_is_a_problem() -> None:
    """What never came back is counted and named."""
    ledger = Ledger([good("a"), good("b")])
    ledger.add(verdict("a"))
    assert ledger.lost == 1
    assert any("1 events have no outcome: b" in each for each in ledger.problems())


def test_a_second_outcome_is_a_duplicate() -> None:
    """A second verdict, and a dead letter after a verdict, are both one too many."""
    ledger = Ledger([good("a")])
    for outcome in (verdict("a"), verdict("a"), DemoDeadLetter("a", "decode", "corrupt")):
        ledger.add(outcome)
    assert ledger.duplicates == 2
    assert ledger.problems() == ["2 events have a second outcome"]


@pytest.mark.parametrize("stranger", [verdict("x"), verdict("a", event_id="other")])
def test_an_outcome_of_an_event_that_was_never_sent_is_a_problem(stranger: DemoVerdict) -> None:
    """Neither an unknown content id nor another event id passes for the event's outcome."""
    ledger = Ledger([good("a")])
    ledger.add(stranger)
    ledger.add(verdict("a"))
    assert len(ledger.problems()) == 1
    assert "not sent" in ledger.problems()[0]


def test_the_wrong_kind_of_outcome_is_a_problem() -> None:
    """A broken image with a verdict, a good one as dead letter, and another code than expected."""
    ledger = Ledger([broken("a"), good("b"), broken("c", "not_found")])
    ledger.add(verdict("a"))
    ledger.add(DemoDeadLetter("b", "decode", "corrupt"))
    ledger.add(DemoDeadLetter("c", "fetch", "unreachable"))
    assert len(ledger.problems()) == 3


def test_accuracy_counts_labelled_verdicts_alone() -> None:
    """Fake counts as right when flagged, real when allowed; no label, no vote."""
    events = [good("a", "fake"), good("b", "fake"), good("c", "real"), good("d", "real"), good("e")]
    ledger = Ledger(events)
    for content_id, band in zip(
        "abcde", ("block", "allow", "allow", "review", "review"), strict=True
    ):
        ledger.add(verdict(content_id, band))
    accuracy = ledger.accuracy()
    assert (accuracy.n, accuracy.correct) == (4, 2)
    assert (accuracy.fake_flagged, accuracy.real_allowed) == (1, 1)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 50, 0.0), ([7.0], 99, 7.0), ([3.0, 1.0, 2.0], 50, 2.0), (list(range(1, 101)), 99, 99)],
)
def test_percentile_is_the_nearest_rank(
    values: list[float], percent: float, expected: float
) -> None:
    """The smallest value that at least so many percent do not exceed."""
    assert percentile(values, percent) == expected
