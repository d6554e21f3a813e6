"""A version is tried once when its channel moves, and a refused one is left alone for long."""

import uuid
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from engines.release.records import Change, Version
from worker.rollout import Candidates

RETRY_S = 3600.0
A, B = (
    Version(name="tiny", version=version, manifest_sha256=digit * 64)
    for version, digit in (("0.1.0", "a"), ("0.2.0", "b"))
)


def change(after: Version, serial: int = 2) -> Change:
    """A channel's change to that version."""
    return Change.model_validate(
        {
            "id": uuid.uuid4().hex,
            "serial": serial,
            "channel": "stable",
            "action": "promote",
            "at": datetime(2026, 11, 1, tzinfo=UTC),
            "who": "tests",
            "before": None,
            "after": after,
            "reason": "",
            "signed_by": None,
        }
    )


def test_what_is_in_place_is_not_loaded_again() -> None:
    """Also where the channel has gone away from it and come back between two looks."""
    state = Candidates(A, RETRY_S)
    assert not state.wanted(change(A), 0.0)
    assert not state.wanted(change(A, serial=4), 0.0)
    assert state.wanted(change(B), 0.0)


def test_an_empty_seat_wants_whatever_there_is() -> None:
    """As a canary's or a shadow's does at the start."""
    assert Candidates(None, RETRY_S).wanted(change(A), 0.0)


def test_a_refused_version_is_left_alone_until_the_channel_moves_or_long_after() -> None:
    """The same version promoted again is another change: somebody has looked at it."""
    state, bad = Candidates(A, RETRY_S), change(B)
    state.refuse(bad, 100.0)
    assert state.installed == A
    assert not state.wanted(bad, 100.1)
    assert not state.wanted(bad, 100.0 + RETRY_S - 1)
    assert state.wanted(bad, 100.0 + RETRY_S)
    assert state.wanted(change(B, serial=3), 100.1)
    assert not state.wanted(change(A, serial=3), 100.1), "a rollback to what is in place"


def test_what_broke_leaves_an_empty_seat_and_counts_as_refused() -> None:
    """The version before it may come back at once; it itself only after the pause."""
    state, broken = Candidates(None, RETRY_S), change(B)
    state.accept(broken)
    assert not state.wanted(broken, 0.0)
    state.evict(broken, 50.0)
    assert state.installed is None
    assert not state.wanted(broken, 51.0)
    assert state.wanted(change(A, serial=3), 51.0)


@given(times=st.lists(st.floats(0.01, RETRY_S / 50), max_size=50))
def test_a_bad_version_is_tried_once_however_often_one_looks(times: list[float]) -> None:
    """No busy loop: all looks within the pause lead to one attempt."""
    state, bad, now_s, tries = Candidates(A, RETRY_S), change(B), 0.0, 0
    for pause_s in times:
        now_s += pause_s
        if state.wanted(bad, now_s):
            tries += 1
            state.refuse(bad, now_s)
    assert tries == min(1, len(times))
