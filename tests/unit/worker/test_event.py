"""Every way an image event may arrive, well formed or not, becomes an ImageEvent or a Poison."""

import json
from datetime import UTC, datetime

import pytest

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
from worker.event import ImageEvent, Record, parse_event


def test_structured_event_with_a_uri() -> None:
    """Every field of a structured event is read; the time is turned into UTC."""
    data = {
        "content_id": "content-1",
        "uri": "https://images.example/1.jpg",
        "sha256": "AB" * 32,
        "mime": "image/jpeg",
    }
    found = parse_event(
        structured(cloudevent(data, time="2026-02-02T04:40:00+02:00", traceparent=TRACEPARENT))
    )
    assert found == ImageEvent(
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
    found = parse_event(record(json.dumps(cloudevent()).encode(), headers=headers))
    assert found.event_id == "event-1"


def test_structured_event_with_inline_bytes() -> None:
    """The bytes may be in the data or, as CloudEvents has it, at the top; both give the payload."""
    image = jpeg_bytes()
    inside = cloudevent({"content_id": "content-1", "data_base64": base64_text(image)})
    on_top = cloudevent(
        datacontenttype="image/jpeg", data_base64=base64_text(image), subject="content-2"
    )
    del on_top["data"]
    assert parse_event(structured(inside)).payload == image
    found = parse_event(structured(on_top))
    assert (found.payload, found.content_id, found.mime) == (image, "content-2", "image/jpeg")


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
    found = parse_event(record(image, headers=headers))
    assert found == ImageEvent(
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
        found = parse_event(record(value, headers=binary_headers(content_type=content_type)))
        assert (found.content_id, found.uri) == ("content-9", "s3://uploads/9.jpg")
        assert found.mime is None, "the data's media type is not the image's"


def test_header_names_are_compared_without_case() -> None:
    """Clients write ce_id, Ce_Id or CE_ID; Content-Type likewise."""
    headers = [(name.title(), value) for name, value in binary_headers()]
    assert parse_event(record(b"image", headers=headers)).payload == b"image"


def test_headers_without_a_value_are_not_there() -> None:
    """Kafka allows null header values: one is as good as none, and no reason to stumble."""
    headers = [*binary_headers(), ("ce_time", None), ("traceparent", None)]
    found = parse_event(record(b"image", headers=headers))
    assert (found.event_time, found.trace_id) == (EVENT_TIME, None)
    without = [("ce_specversion", None), *binary_headers()[1:]]
    assert poison(record(b"image", headers=without)).code == "malformed_json"


def test_subject_comes_before_the_key_as_content_id() -> None:
    """What the sender says explicitly wins."""
    found = parse_event(record(b"image", headers=binary_headers(subject="content-of-subject")))
    assert found.content_id == "content-of-subject"


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (None, "the content id is missing: send it as the record's key"),
        (b"", "the content id is missing"),
        (b"\xff\xfe", "the record's key is not UTF-8"),
        (b"a\nb", "the record's key: String should match pattern"),
        (b"x" * 513, "the record's key: String should have at most 512 characters"),
    ],
)
def test_a_key_that_is_no_content_id(key: bytes | None, told: str) -> None:
    """Each fault of a key has its own message."""
    error = poison(record(b"image", key=key, headers=binary_headers()))
    assert error.code == "content_id"
    assert told in error.message


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
    ("value", "code", "told"),
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
def test_a_value_that_is_no_event(value: bytes | None, code: str, told: str) -> None:
    """What is not even JSON, or JSON of something else, is told apart."""
    error = poison(record(value))
    assert error.code == code
    assert told in error.message


URI = {"content_id": "c", "uri": "https://h/1"}


@pytest.mark.parametrize(
    ("document", "told"),
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
def test_an_event_with_a_wrong_field_names_it(document: dict[str, object], told: str) -> None:
    """The message begins with the field's name and never shows the payload."""
    error = poison(structured(document))
    assert error.code == "invalid_event"
    assert error.message.startswith(told)


@pytest.mark.parametrize(
    ("document", "code", "told"),
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
    document: dict[str, object], code: str, told: str
) -> None:
    """None and two are told apart; which of two would be meant is never guessed."""
    error = poison(structured(document))
    assert error.code == code
    assert told in error.message


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
