"""The verdict's id tells redeliveries, its times sort as text, its JSON is the contract's."""

import json
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from worker.event import sortable_time
from worker.messages import verdict_id
from worker.verdict import Signals

PARTS = st.tuples(*[st.text(max_size=12)] * 4)
MOMENTS = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001 (hypothesis wants naive bounds)
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.integers(-12, 12).map(lambda hours: timezone(timedelta(hours=hours))),
)


def test_the_id_is_a_stable_uuid_version_5() -> None:
    """The id of a tuple never changes: a release that alters it would publish everything twice."""
    identity = verdict_id("/uploads", "event-1", "engine", "enforce")
    assert identity == "ab549318-8349-5a2e-aedf-0f0fd21c43f2"
    assert uuid.UUID(identity).version == 5


@given(left=PARTS, right=PARTS)
def test_distinct_tuples_have_distinct_ids(
    left: tuple[str, str, str, str], right: tuple[str, str, str, str]
) -> None:
    """Equal parts, equal id; any difference, another id."""
    assert (verdict_id(*left) == verdict_id(*right)) == (left == right)


@given(st.text(min_size=1, max_size=8), st.text(max_size=8))
def test_where_a_part_ends_makes_a_difference(left: str, right: str) -> None:
    """Characters that move from one part to the next give another id."""
    assert verdict_id(left, right, "", "") != verdict_id("", left + right, "", "")


@given(MOMENTS, MOMENTS)
def test_times_compare_as_text_as_the_moments_do(left: datetime, right: datetime) -> None:
    """Whatever the zone and however early the year: Redis' script compares text."""
    assert (sortable_time(left) < sortable_time(right)) == (left < right)
    assert len(sortable_time(left)) == len("2026-01-31T12:00:00.000000Z")


def test_a_time_is_written_in_utc_with_microseconds() -> None:
    """A plain example."""
    at = datetime(2026, 1, 31, 14, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    assert sortable_time(at) == "2026-01-31T12:00:00.000005Z"
    assert sortable_time(datetime(7, 1, 1, tzinfo=UTC)) == "0007-01-01T00:00:00.000000Z"


def test_a_verdict_can_hold_neither_more_nor_impossible_values() -> None:
    """What the contract does not name, and a probability over 1, are refused where they are made."""
    with pytest.raises(ValidationError):
        Signals(classifier=1.5)
    with pytest.raises(ValidationError):
        Signals.model_validate({"classifier": 0.5, "extra": 1})
    assert json.loads(Signals(classifier=0.5).model_dump_json()) == {
        "classifier": 0.5,
        "hash_match": None,
        "provenance": None,
    }
