"""Whatever bytes and headers come in, reading them gives an ImageEvent or Poison, nothing else."""

import json
import string
from urllib.parse import quote_plus, unquote, urlsplit

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.worker.notifications import aws
from tests.unit.worker.samples import EVENT_TIME, cloudevent, record
from worker.errors import Poison
from worker.event import ImageEvent, Record, parse_event

URI = {"content_id": "c", "uri": "https://h/1"}
HEADER_NAMES = st.sampled_from(
    [f"ce_{name}" for name in ("specversion", "id", "source", "type", "subject", "time", "sha256")]
    + ["content-type", "traceparent", "other"]
)
HEADER_VALUES = st.one_of(
    st.none(),
    st.binary(max_size=40),
    st.sampled_from(
        [
            *(b"1.0", b"io.synthgate.image.uploaded.v1", b"application/json", b"image/png"),
            *(b"0001-01-01T00:00:00+10:00", b"ab" * 32),
        ]
    ),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["1.0", "io.synthgate.image.uploaded.v1", "9999-12-31T23:59:59-10:00", "aa=="]),
)
NAMES = st.sampled_from(
    [
        *("specversion", "id", "source", "type", "subject", "time", "data", "data_base64"),
        *("content_id", "uri", "sha256", "mime", "uploaded_at", "traceparent", "Records", "s3"),
        *("bucket", "object", "name", "key", "eventName", "eventTime", "eventSource", "versionId"),
    ]
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=6)),
    max_leaves=20,
)


def _is_event_or_poison(source: Record) -> None:
    try:
        found = parse_event(source)
    except Poison as error:
        told = error
    else:
        assert isinstance(found, ImageEvent)
        assert found.content_id.encode(), "it becomes a Kafka key"
        assert (found.uri is None) != (found.payload is None)
        assert found.event_time.utcoffset() == EVENT_TIME.utcoffset()
        return
    assert told.stage == "event"
    assert told.code.replace("_", "").isalnum()
    assert told.message


@given(
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=60),
    headers=st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=8),
    timestamp_ms=st.integers(-(2**63), 2**63 - 1),
)
@example(key=None, value=b"x", headers=[], timestamp_ms=2**63 - 1)
def test_any_record_is_an_event_or_poison(
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
    timestamp_ms: int,
) -> None:
    """Whatever bytes come in, nothing but Poison is ever raised."""
    _is_event_or_poison(record(value, key=key, headers=headers, timestamp_ms=timestamp_ms))


@settings(max_examples=60)
@given(document=DOCUMENTS, changes=st.dictionaries(NAMES, DOCUMENTS, max_size=4))
def test_any_json_is_an_event_or_poison(document: object, changes: dict[str, object]) -> None:
    """So it is with JSON of any shape, and with a good event of which some fields were changed."""
    for one in (document, cloudevent() | changes, cloudevent(URI | changes), aws(**changes)):
        _is_event_or_poison(record(json.dumps(one).encode()))


@given(
    key=st.text(string.printable, min_size=1, max_size=60), version=st.text(min_size=1, max_size=9)
)
def test_an_object_key_survives_the_way_through_the_uri(key: str, version: str) -> None:
    """Whatever its characters, the key in the URI, unquoted, is the object's."""
    entry = {"bucket": {"name": "b"}, "object": {"key": quote_plus(key), "versionId": version}}
    found = parse_event(record(json.dumps(aws(s3=entry)).encode()))
    assert unquote(urlsplit(found.uri or "").path.removeprefix("/")) == key
    assert found.event_id == f"b/{key}@{version}"
