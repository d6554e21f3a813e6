"""Every record becomes an ImageEvent or a Poison: each form that the contract allows, and arbitrary bytes."""

import json
import string
from datetime import UTC, datetime
from urllib.parse import quote_plus, unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.worker.samples import (
    EVENT_TIME,
    TRACE_ID,
    TRACEPARENT,
    base64_text,
    binary_headers,
    cloudevent,
    jpeg_bytes,
    poison,
    record,
    structured,
)
from worker.errors import Poison
from worker.event import ImageEvent, Record, parse_event


def test_structured_event_with_a_uri() -> None:
    """Every field of a structured event is read; the time is turned into UTC."""
    data = {
        "content_id": "content-1",
        "uri": "https://images.example/1.jpg",
        "sha256": "AB" * 32,
        "mime": "image/jpeg",
    }
    event = parse_event(
        structured(cloudevent(data, time="2026-02-02T04:40:00+02:00", traceparent=TRACEPARENT))
    )
    assert event == ImageEvent(
        event_id="event-1",
        source="/uploads",
        content_id="content-1",
        event_time=EVENT_TIME,
        uri="https://images.example/1.jpg",
        sha256="ab" * 32,
        mime="image/jpeg",
        trace_id=TRACE_ID,
    )


@pytest.mark.parametrize("content_type", [b"application/cloudevents+json", b"text/plain", None])
def test_structured_event_is_known_by_its_specversion(content_type: bytes | None) -> None:
    """A sender that sets no content type, or a wrong one, is understood all the same."""
    headers = [] if content_type is None else [("content-type", content_type)]
    event = parse_event(record(json.dumps(cloudevent()).encode(), headers=headers))
    assert event.event_id == "event-1"


def test_structured_event_with_inline_bytes() -> None:
    """The bytes may be in the data or, as CloudEvents has it, at the top; both give the payload."""
    image = jpeg_bytes()
    inside = cloudevent({"content_id": "content-1", "data_base64": base64_text(image)})
    on_top = cloudevent(
        datacontenttype="image/jpeg", data_base64=base64_text(image), subject="content-2"
    )
    del on_top["data"]
    assert parse_event(structured(inside)).payload == image
    event = parse_event(structured(on_top))
    assert (event.payload, event.content_id, event.mime) == (image, "content-2", "image/jpeg")


def test_base64_may_be_wrapped_but_not_url_safe() -> None:
    """Line breaks are harmless; another alphabet would silently give other bytes, so it is refused."""
    image = bytes(range(256))
    wrapped = "\n".join(base64_text(image)[at : at + 76] for at in range(0, 344, 76))
    url_safe = base64_text(image).replace("+", "-").replace("/", "_")

    def of(text: str) -> Record:
        return structured(cloudevent({"content_id": "content-1", "data_base64": text}))

    assert parse_event(of(wrapped)).payload == image
    for wrong in (url_safe, base64_text(image)[:-1], "käse"):
        error = poison(of(wrong))
        assert error.code == "invalid_event"
        assert error.message.startswith("data.data_base64: not standard base64")


def test_binary_event_with_the_image_as_value() -> None:
    """In binary mode the record's value is the image and the key the content id."""
    image = jpeg_bytes()
    headers = binary_headers(sha256="AB" * 32, traceparent=TRACEPARENT, time="2026-02-02T02:40:00Z")
    event = parse_event(record(image, headers=headers))
    assert event == ImageEvent(
        event_id="event-1",
        source="/uploads",
        content_id="content-1",
        event_time=EVENT_TIME,
        payload=image,
        sha256="ab" * 32,
        mime="image/jpeg",
        trace_id=TRACE_ID,
    )


def test_binary_event_with_json_data() -> None:
    """In binary mode with JSON the value is the data, as structured mode has it inside."""
    value = json.dumps({"content_id": "content-9", "uri": "s3://uploads/9.jpg"}).encode()
    for content_type in ("application/json", "Application/JSON; charset=utf-8"):
        event = parse_event(record(value, headers=binary_headers(content_type=content_type)))
        assert (event.content_id, event.uri) == ("content-9", "s3://uploads/9.jpg")
        assert event.mime is None, "the data's media type is not the image's"


def test_header_names_are_compared_without_case() -> None:
    """Clients write ce_id, Ce_Id or CE_ID; Content-Type likewise."""
    headers = [(name.title(), value) for name, value in binary_headers()]
    assert parse_event(record(b"image", headers=headers)).payload == b"image"


def test_headers_without_a_value_are_not_there() -> None:
    """Kafka allows null header values: one is as good as none, and no reason to stumble."""
    headers = [*binary_headers(), ("ce_time", None), ("traceparent", None)]
    event = parse_event(record(b"image", headers=headers))
    assert (event.event_time, event.trace_id) == (EVENT_TIME, None)
    without = [("ce_specversion", None), *binary_headers()[1:]]
    assert poison(record(b"image", headers=without)).code == "malformed_json"


def test_subject_comes_before_the_key_as_content_id() -> None:
    """What the sender says explicitly wins."""
    event = parse_event(record(b"image", headers=binary_headers(subject="content-of-subject")))
    assert event.content_id == "content-of-subject"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "the content id is missing: send it as the record's key"),
        (b"", "the content id is missing"),
        (b"\xff\xfe", "the record's key is not UTF-8"),
        (b"a\nb", "the record's key: String should match pattern"),
        (b"x" * 513, "the record's key: String should have at most 512 characters"),
    ],
)
def test_a_key_that_is_no_content_id(key: bytes | None, message: str) -> None:
    """Each fault of a key has its own message."""
    error = poison(record(b"image", key=key, headers=binary_headers()))
    assert error.code == "content_id"
    assert message in error.message


def test_time_falls_back_to_upload_time_then_record_time() -> None:
    """The event's own time first; the record's timestamp last."""
    data = {"content_id": "c", "uri": "https://h/1", "uploaded_at": "2026-01-01T00:00:00Z"}
    assert parse_event(structured(cloudevent(data))).event_time == datetime(2026, 1, 1, tzinfo=UTC)
    assert parse_event(structured(cloudevent())).event_time == EVENT_TIME
    early = parse_event(structured(cloudevent(), timestamp_ms=-1)).event_time
    assert early == datetime(1970, 1, 1, tzinfo=UTC), "an old producer sends no timestamp: -1"


def test_a_timestamp_in_microseconds_is_refused() -> None:
    """Such a time lies 50,000 years ahead: it would keep every later verdict out of Redis."""
    error = poison(structured(cloudevent(), timestamp_ms=1_770_000_000_000_000))
    assert (error.code, "not a time in milliseconds" in error.message) == ("timestamp", True)


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        (None, "empty", "send an image event"),
        (b"", "empty", "send an image event"),
        (b"not json", "malformed_json", "the record's value is not JSON"),
        (b"\xff\xd8\xff\xe0 a bare jpeg", "malformed_json", "the record's value is not JSON"),
        (b"[" * 100_000, "malformed_json", "the record's value is not JSON"),
        (b'{"id": ' + b"1" * 5000 + b"}", "malformed_json", "the record's value is not JSON"),
        (b"[]", "malformed_json", "JSON but not an object"),
        (b"null", "malformed_json", "JSON but not an object"),
        (b"{}", "unknown_format", "no specversion"),
    ],
)
def test_a_value_that_is_no_event(value: bytes | None, code: str, message: str) -> None:
    """Each kind of value has its own code."""
    error = poison(record(value))
    assert error.code == code
    assert message in error.message


URI = {"content_id": "c", "uri": "https://h/1"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (cloudevent(specversion="0.3"), "specversion: Input should be '1.0'"),
        (cloudevent(type="other"), "type: Input should be 'io.synthgate.image.uploaded.v1'"),
        (cloudevent(id=""), "id: String should have at least 1 character"),
        (cloudevent(id=7), "id: Input should be a valid string"),
        (cloudevent(source=None), "source: Input should be a valid string"),
        ({"specversion": "1.0"}, "id: Field required"),
        (cloudevent({"uri": "https://h/1"}), "data.content_id: Field required"),
        (cloudevent(URI | {"content_id": "a\x00b"}), "data.content_id: String should match"),
        (cloudevent(URI | {"content_id": "\ud800"}), "data.content_id: "),
        (cloudevent(URI | {"uri": ""}), "data.uri: String should have at least 1 character"),
        (cloudevent(URI | {"uri": "x" * 2049}), "data.uri: String should have at most 2048"),
        (cloudevent(URI | {"sha256": "abc"}), "data.sha256: String should match pattern"),
        (cloudevent(time="2026-01-01T00:00:00"), "time: Input should have timezone info"),
        (cloudevent(time=1_770_000_000), "time: expected an RFC 3339 time"),
        (cloudevent(time="1770000000"), "time: expected an RFC 3339 time"),
        (cloudevent(time="0001-01-01T00:00:00+23:59"), "time: in UTC the time lies outside"),
        (cloudevent(time="9999-12-31T23:59:59-01:00"), "time: in UTC the time lies outside"),
        (cloudevent({"content_id": "c", "data_base64": 7}), "data.data_base64: expected a string"),
    ],
)
def test_an_event_with_a_wrong_field_names_it(document: dict[str, object], message: str) -> None:
    """The message begins with the field's name and never shows the payload."""
    error = poison(structured(document))
    assert error.code == "invalid_event"
    assert error.message.startswith(message)


@pytest.mark.parametrize(
    ("document", "code", "message"),
    [
        (cloudevent({"content_id": "c"}), "no_image", "this one has none of them"),
        (cloudevent({"content_id": "c", "data_base64": ""}), "no_image", "none of them"),
        (cloudevent(URI | {"data_base64": "aaaa"}), "two_images", "more than one of them"),
        (cloudevent(URI, data_base64="aaaa"), "two_images", "more than one of them"),
        (
            cloudevent({"content_id": "c", "data_base64": "aaaa"}, data_base64="bbbb"),
            "two_images",
            "more than one of them",
        ),
    ],
)
def test_an_event_carries_exactly_one_image(
    document: dict[str, object], code: str, message: str
) -> None:
    """No image and two images have different codes; the worker never picks one of two."""
    error = poison(structured(document))
    assert error.code == code
    assert message in error.message


def test_a_wrong_digest_header_is_named() -> None:
    """A digest that is none says so at once, instead of never matching."""
    error = poison(record(b"image", headers=binary_headers(sha256="xyz")))
    assert (error.code, error.message[:10]) == ("invalid_event", "ce_sha256:")


@pytest.mark.parametrize(
    "traceparent",
    ["", "garbage", f"00-{TRACE_ID}-00f067aa0ba902b7", f"00-{'z' * 32}-00f067aa0ba902b7-01"],
)
def test_a_broken_traceparent_does_no_harm(traceparent: str) -> None:
    """Tracing is the sender's own affair: the event is read without it."""
    assert parse_event(structured(cloudevent(traceparent=traceparent))).trace_id is None


def test_traceparent_may_be_a_plain_kafka_header() -> None:
    """OpenTelemetry's instrumentation writes it without the ce_ prefix."""
    source = record(
        json.dumps(cloudevent()).encode(), headers=[("traceparent", TRACEPARENT.encode())]
    )
    assert parse_event(source).trace_id == TRACE_ID


# As MinIO's Kafka target sends it (field for field; the owner's names are made up).
MINIO = json.loads("""
{"EventName": "s3:ObjectCreated:Put", "Key": "uploads/2026/a+b%26c.jpg", "Records": [{
  "eventVersion": "2.0", "eventSource": "minio:s3", "awsRegion": "",
  "eventTime": "2026-02-02T02:40:00.123Z", "eventName": "s3:ObjectCreated:Put",
  "userIdentity": {"principalId": "uploader"},
  "requestParameters": {"principalId": "uploader", "region": "", "sourceIPAddress": "::1"},
  "responseElements": {"x-amz-request-id": "18A", "x-minio-origin-endpoint": "http://m"},
  "s3": {
    "s3SchemaVersion": "1.0", "configurationId": "Config",
    "bucket": {"name": "uploads", "ownerIdentity": {"principalId": "uploader"},
               "arn": "arn:aws:s3:::uploads"},
    "object": {"key": "2026%2Fa%2Bb%26c+d.jpg", "size": 31337,
               "eTag": "f1c9645dbc14efddc7d8a322685f26eb", "contentType": "image/jpeg",
               "userMetadata": {"content-type": "image/jpeg"}, "sequencer": "18A1F2B3C4D5E6F7"}},
  "source": {"host": "::1", "port": "", "userAgent": "MinIO (linux; amd64)"}}]}
""")
# As Amazon S3 sends it, here through a bridge that keeps the JSON as it is.
AWS = json.loads("""
{"Records": [{
  "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1",
  "eventTime": "2026-02-02T02:40:00.000Z", "eventName": "ObjectCreated:CompleteMultipartUpload",
  "userIdentity": {"principalId": "AWS:AIDA"},
  "requestParameters": {"sourceIPAddress": "192.0.2.1"},
  "responseElements": {"x-amz-request-id": "C3D1", "x-amz-id-2": "Fiv"},
  "s3": {
    "s3SchemaVersion": "1.0", "configurationId": "images",
    "bucket": {"name": "my-bucket", "ownerIdentity": {"principalId": "A3N"},
               "arn": "arn:aws:s3:::my-bucket"},
    "object": {"key": "holiday/beach+1.png", "size": 1024,
               "eTag": "d41d8cd98f00b204e9800998ecf8427e",
               "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
               "sequencer": "0055AED6DCD90281E5"}}}]}
""")


def aws(**changes: object) -> dict[str, object]:
    """Amazon's notification with fields of its one record replaced."""
    entry = AWS["Records"][0] | changes
    return {"Records": [entry]}


@pytest.mark.parametrize("notification", [MINIO, AWS])
def test_a_bucket_notification_names_object_bucket_and_version(
    notification: dict[str, object],
) -> None:
    """Notifications are read as these systems send them."""
    event = parse_event(record(json.dumps(notification).encode(), key=b"uploads/whatever"))
    if notification is MINIO:
        assert event.uri == "s3://uploads/2026/a%2Bb%26c%20d.jpg"
        assert event.content_id == "uploads/2026/a+b&c d.jpg"
        assert event.event_id == "uploads/2026/a+b&c d.jpg@18A1F2B3C4D5E6F7"
        assert event.source == "minio:s3/uploads"
        assert event.event_time == datetime(2026, 2, 2, 2, 40, 0, 123000, tzinfo=UTC)
    else:
        assert event.uri == "s3://my-bucket/holiday/beach%201.png"
        assert event.content_id == "my-bucket/holiday/beach 1.png"
        assert event.event_id.endswith("@096fKKXTRTtl3on89fVO.nfljtsv6qko")
        assert (event.source, event.event_time) == ("aws:s3/my-bucket", EVENT_TIME)
    assert event.payload is None


@pytest.mark.parametrize(
    ("document", "code", "message"),
    [
        (aws(eventName="ObjectRemoved:Delete"), "not_created", "s3:ObjectCreated:*"),
        ({"Records": AWS["Records"] * 2}, "many_records", "split it before sending"),
        ({"Records": []}, "invalid_event", "Records: List should have at least 1 item"),
        ({"Records": "x"}, "invalid_event", "Records: Input should be a valid list"),
        (
            aws(s3={"bucket": {"name": "b"}}),
            "invalid_event",
            "Records.0.s3.object: Field required",
        ),
        (
            aws(s3={"bucket": {"name": "b/../c"}, "object": {"key": "k"}}),
            "invalid_event",
            "Records.0.s3.bucket.name",
        ),
        (
            aws(s3={"bucket": {"name": "b"}, "object": {"key": "k" * 600}}),
            "content_id",
            "exceed 512 characters",
        ),
        (aws(eventTime="yesterday"), "invalid_event", "Records.0.eventTime: expected an RFC 3339"),
        (
            {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"},
            "unknown_format",
            "neither a CloudEvent (no specversion) nor a bucket notification (no Records)",
        ),
    ],
)
def test_a_notification_that_cannot_be_used(
    document: dict[str, object], code: str, message: str
) -> None:
    """The message says which field, or how to subscribe."""
    error = poison(record(json.dumps(document).encode()))
    assert error.code == code
    assert message in error.message


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
        event = parse_event(source)
    except Poison as error:
        raised = error
    else:
        assert isinstance(event, ImageEvent)
        assert event.content_id.encode(), "it becomes a Kafka key"
        assert (event.uri is None) != (event.payload is None)
        assert event.event_time.utcoffset() == EVENT_TIME.utcoffset()
        return
    assert raised.stage == "event"
    assert raised.code.replace("_", "").isalnum()
    assert raised.message


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
    for value in (document, cloudevent() | changes, cloudevent(URI | changes), aws(**changes)):
        _is_event_or_poison(record(json.dumps(value).encode()))


@given(
    key=st.text(string.printable, min_size=1, max_size=60), version=st.text(min_size=1, max_size=9)
)
def test_an_object_key_survives_the_way_through_the_uri(key: str, version: str) -> None:
    """Whatever its characters, the key in the URI, unquoted, is the object's."""
    entry = {"bucket": {"name": "b"}, "object": {"key": quote_plus(key), "versionId": version}}
    event = parse_event(record(json.dumps(aws(s3=entry)).encode()))
    assert unquote(urlsplit(event.uri or "").path.removeprefix("/")) == key
    assert event.event_id == f"b/{key}@{version}"
