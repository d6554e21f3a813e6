"""A dead letter is the record, whole, with the reason beside it; replaying undoes what was added."""

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.samples import TIMESTAMP_MS, record, rejected
from worker import __version__, dead_letter
from worker.dead_letter import (
    dead_letter_headers,
    dead_letter_id,
    header,
    replayed_headers,
    sendable_value,
    shrunk,
)

NAMES = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["ce_id", dead_letter.REPLAYS, dead_letter.STAGE, dead_letter.VALUE_OMITTED]
)
HEADERS = st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=12)), max_size=6)


def test_the_context_headers_say_where_and_why() -> None:
    """Kafka Connect's names, which tools know, and ours for the rest."""
    source = record(b"value", headers=[("ce_id", b"1")])
    found = dead_letter_headers(rejected(source, attempts=3))
    assert found == [
        ("ce_id", b"1"),
        ("__connect.errors.topic", b"images.uploaded"),
        ("__connect.errors.partition", b"2"),
        ("__connect.errors.offset", b"7"),
        ("__connect.errors.stage", b"decode"),
        ("__connect.errors.exception.class.name", b"worker.errors.Poison"),
        ("__connect.errors.exception.message", b"the image ends early: send it whole"),
        ("synthgate.error.code", b"truncated"),
        ("synthgate.error.attempts", b"3"),
        ("synthgate.worker.version", __version__.encode()),
        ("synthgate.dead_letter.id", dead_letter_id(source).encode()),
    ]


@given(HEADERS)
def test_every_dead_letter_can_be_sent(headers: list[tuple[str, bytes | None]]) -> None:
    """kafka-python takes (str, bytes) alone: a null header value becomes an empty one."""
    for found in (
        dead_letter_headers(rejected(record(headers=headers))),
        replayed_headers(headers),
    ):
        assert all(isinstance(name, str) and isinstance(value, bytes) for name, value in found)


def test_a_record_without_key_and_value_can_be_sent() -> None:
    """kafka-python sends no such record, and a dead letter must never be impossible."""
    assert sendable_value(record(None, key=None)) == b""
    assert sendable_value(record(None, key=b"k")) is None
    assert sendable_value(record(b"v", key=None)) == b"v"


@given(HEADERS)
def test_replaying_undoes_what_was_added(headers: list[tuple[str, bytes | None]]) -> None:
    """The original headers come back in order; the count of replays alone is new."""
    ours = {value for name, value in vars(dead_letter).items() if name.isupper() and value}
    original = [(name, value or b"") for name, value in headers if name not in ours]
    found = replayed_headers(dead_letter_headers(rejected(record(headers=headers))))
    assert found[:-1] == original
    assert found[-1][0] == "synthgate.replays"


def test_replays_are_counted() -> None:
    """One more each time; a count from outside that is none counts as none."""
    once = replayed_headers([])
    assert once == [("synthgate.replays", b"1")]
    assert replayed_headers(once) == [("synthgate.replays", b"2")]
    for nonsense in (b"many", b"-1", b"\xff", b"\xb2", b"9" * 100, b""):
        assert replayed_headers([("synthgate.replays", nonsense)]) == once


def test_the_last_value_of_a_header_counts() -> None:
    """A sender may have used our names already; ours come after."""
    source = record(headers=[("__connect.errors.stage", b"older"), ("empty", None)])
    headers = dead_letter_headers(rejected(source))
    assert header(headers, "__connect.errors.stage") == "decode"
    assert header(headers, "nothing") is None
    assert header([("a", None)], "a") is None


def test_a_dead_letter_shrinks_until_nothing_is_left_to_leave_out() -> None:
    """Without its value first, then without the sender's key and headers; where it was stays."""
    first = dead_letter_headers(rejected(record(b"value", headers=[("big", b"x" * 100)])))
    once = shrunk(b"key", first)
    assert once is not None
    assert once == (b"key", None, [*first, ("synthgate.value_omitted", b"true")])
    twice = shrunk(once[0], once[2])
    assert twice is not None
    key, value, headers = twice
    assert (key, value) == (None, b"")
    assert header(headers, "big") is None
    assert header(headers, "__connect.errors.offset") == "7"
    assert header(headers, "synthgate.value_omitted") == "true"
    assert shrunk(key, headers) is None


def test_without_a_key_the_value_becomes_empty() -> None:
    """A record needs one of the two."""
    found = shrunk(None, dead_letter_headers(rejected()))
    assert found is not None
    assert found[:2] == (None, b"")


def test_a_verdict_does_not_shrink() -> None:
    """It is no dead letter: leaving its value out would lose the verdict."""
    assert shrunk(b"key", [("content-type", b"application/cloudevents+json")]) is None


def test_flags_from_outside_do_not_count() -> None:
    """A sender that writes our flags must not keep its dead letter from shrinking, or from replay."""
    flags = [("synthgate.value_omitted", b"true"), ("synthgate.key_and_headers_omitted", b"true")]
    headers = dead_letter_headers(rejected(record(headers=flags)))
    assert header(headers, "synthgate.value_omitted") is None
    assert shrunk(b"key", headers) is not None


def test_the_id_is_of_one_record_at_one_place() -> None:
    """Redelivered, it is the same; another place, time or content is another."""
    base = dead_letter_id(record())
    assert base == dead_letter_id(record(headers=[("any", b"thing")]))
    others = [
        record(offset=8),
        record(partition=3),
        record(topic="other"),
        record(timestamp_ms=TIMESTAMP_MS + 1),
        record(b"other"),
        record(key=b"other"),
        record(None, key=None),
    ]
    assert len({base, *map(dead_letter_id, others)}) == 1 + len(others)
