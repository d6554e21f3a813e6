"""The image event: a Kafka record in, an :class:`ImageEvent` out.

Reads CloudEvents 1.0 in structured mode (JSON) and in binary mode (``ce_`` headers), and object-created
notifications of S3 and MinIO as they are.
Errors: :class:`worker.errors.Poison` at stage ``event``, naming the field and what is expected.
Source: CloudEvents 1.0 Kafka protocol binding; the S3 event notification message structure 2.x.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self, TypeVar
from urllib.parse import quote, unquote_plus

from pydantic import BaseModel, TypeAdapter, ValidationError

from worker.errors import Poison
from worker.event_models import (
    CONTENT_ID_MAX_CHARS,
    ContentId,
    ImageUploaded,
    S3Notification,
    Sha256Hex,
)

Model = TypeVar("Model", bound=BaseModel)

TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C
CLOCK_ERROR_MAX = timedelta(minutes=5)
# Made once: an adapter compiles its schema, which takes longer than reading an event.
_SHA256 = TypeAdapter[str](Sha256Hex)
_CONTENT_ID = TypeAdapter[str](ContentId)


@dataclass(frozen=True, slots=True)
class Record:
    """What the worker keeps of a Kafka record: enough to return it, whole, as a dead letter."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]  # Kafka knows headers without a value

    @property
    def size_bytes(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")


@dataclass(frozen=True, slots=True)
class ImageEvent:
    """One uploaded image: its bytes (``payload``) or where they are (``uri``), never both."""

    event_id: str
    source: str
    content_id: str
    event_time: datetime
    uri: str | None = None
    payload: bytes | None = None
    sha256: str | None = None
    mime: str | None = None
    trace_id: str | None = None

    def no_later_than(self, now_s: float) -> Self:
        """This event, its time at most a clock's error past ``now_s`` (seconds since the epoch).

        An event from the year 9999 would otherwise keep every later verdict of its content out of Redis.
        """
        latest = datetime.fromtimestamp(now_s, tz=UTC) + CLOCK_ERROR_MAX
        return self if self.event_time <= latest else replace(self, event_time=latest)


def parse_event(record: Record) -> ImageEvent:
    """Read one record as an image event.

    Raises:
        Poison: The record is not an image event; the message names what is missing or wrong.
    """
    if not record.value:
        raise _poison("empty", "the record has no value: send an image event")
    headers = {name.lower(): value for name, value in record.headers if value is not None}
    content_type = (_text(headers, "content-type") or "").lower()
    if "ce_specversion" in headers and not content_type.startswith("application/cloudevents"):
        return _from_binary_mode(record, record.value, headers, content_type)
    return _from_json(record, record.value, headers)


def _from_binary_mode(
    record: Record, value: bytes, headers: Mapping[str, bytes], content_type: str
) -> ImageEvent:
    attributes: dict[str, object] = {
        name: _text(headers, f"ce_{name}")
        for name in ("specversion", "id", "source", "type", "subject", "time", "traceparent")
        if f"ce_{name}" in headers
    }
    if content_type.startswith("application/json"):
        attributes["data"] = _json_object(value)
        return _from_cloudevent(record, _validated(ImageUploaded, attributes), headers, None)
    event = _validated(ImageUploaded, {**attributes, "datacontenttype": content_type or None})
    return _from_cloudevent(record, event, headers, value)


def _from_json(record: Record, value: bytes, headers: Mapping[str, bytes]) -> ImageEvent:
    document = _json_object(value)
    if "specversion" in document:
        return _from_cloudevent(record, _validated(ImageUploaded, document), headers, None)
    if "Records" in document:
        return _from_s3(_validated(S3Notification, document))
    raise _poison(
        "unknown_format",
        "the record is JSON but neither a CloudEvent (no specversion) nor a bucket notification "
        "(no Records)",
    )


def _from_cloudevent(
    record: Record, event: ImageUploaded, headers: Mapping[str, bytes], image: bytes | None
) -> ImageEvent:
    data = event.data
    uri = data.uri if data else None
    payload = _only_one(uri, image, event.data_base64, data.data_base64 if data else None)
    time = event.time or (data.uploaded_at if data else None)
    trace = event.traceparent or _text(headers, "traceparent") or _text(headers, "ce_traceparent")
    return ImageEvent(
        event_id=event.id,
        source=event.source,
        content_id=data.content_id if data else _content_id(record, event.subject),
        event_time=time or _record_time(record),
        uri=uri,
        payload=payload,
        sha256=data.sha256 if data else _header_sha256(headers),
        mime=data.mime if data else event.datacontenttype,
        trace_id=_trace_id(trace),
    )


def _only_one(uri: str | None, *payloads: bytes | None) -> bytes | None:
    """The image's bytes, or None where there is a URI instead; empty bytes are no image."""
    found = [payload for payload in payloads if payload]
    if len(found) + (uri is not None) == 1:
        return found[0] if found else None
    raise _poison(
        "two_images" if found else "no_image",
        "an image event carries either a uri (data.uri) or the image's bytes (the record's value in "
        f"binary mode, data_base64), this one has {'more than one' if found else 'none'} of them",
    )


def _header_sha256(headers: Mapping[str, bytes]) -> str | None:
    value = _text(headers, "ce_sha256")
    return None if value is None else _checked(_SHA256, value, "ce_sha256", "invalid_event")


def _from_s3(notification: S3Notification) -> ImageEvent:
    if len(notification.records) > 1:
        raise _poison(
            "many_records", "a bucket notification must hold one record: split it before sending"
        )
    entry = notification.records[0]
    if "ObjectCreated" not in entry.event_name:
        raise _poison(
            "not_created",
            f"{entry.event_name} is no object-created notification: subscribe the topic to s3:ObjectCreated:* alone",
        )
    bucket, key = entry.s3.bucket.name, unquote_plus(entry.s3.object.key)
    version = entry.s3.object.version_id or entry.s3.object.sequencer or entry.s3.object.e_tag
    content_id = f"{bucket}/{key}"
    if len(content_id) > CONTENT_ID_MAX_CHARS:
        raise _poison("content_id", f"bucket and key exceed {CONTENT_ID_MAX_CHARS} characters")
    return ImageEvent(
        event_id=f"{content_id}@{version or entry.event_time.isoformat()}",
        source=f"{entry.event_source}/{bucket}",
        content_id=content_id,
        event_time=entry.event_time,
        uri=f"s3://{bucket}/{quote(key)}",
    )


def _content_id(record: Record, subject: str | None) -> str:
    """Without ``data`` the content id is the CloudEvent's subject or the record's key."""
    if subject:
        return subject
    if not record.key:
        raise _poison(
            "content_id",
            "the content id is missing: send it as the record's key, as ce_subject or in data.content_id",
        )
    try:
        return _checked(_CONTENT_ID, record.key.decode(), "the record's key", "content_id")
    except UnicodeDecodeError as error:
        raise _poison(
            "content_id",
            "the record's key is not UTF-8, so it is no content id: send that as ce_subject or "
            "in data.content_id",
        ) from error


def _record_time(record: Record) -> datetime:
    try:
        return datetime.fromtimestamp(max(record.timestamp_ms, 0) / 1000, tz=UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise _poison(
            "timestamp",
            f"the record's timestamp {record.timestamp_ms} is no time in milliseconds: correct the "
            "producer, or send the event's time",
        ) from error


def _trace_id(traceparent: str | None) -> str | None:
    """The trace id of a W3C ``traceparent`` (version-traceid-spanid-flags), if it is one."""
    match = TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else None


def _text(headers: Mapping[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    return value.decode("utf-8", errors="replace") if value is not None else None


def _json_object(value: bytes) -> dict[str, object]:
    try:
        document = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise _poison("malformed_json", f"the record's value is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _poison("malformed_json", "the record's value is JSON but not an object")
    return document


def _validated(model: type[Model], document: Mapping[str, object]) -> Model:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise _poison("invalid_event", _first(error, "the event")) from error


def _checked(kind: TypeAdapter[str], value: str, name: str, code: str) -> str:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise _poison(code, _first(error, name)) from error


def _first(error: ValidationError, name: str) -> str:
    """The first complaint: where, and what is expected; the input itself stays out of it."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or name
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _poison(code: str, message: str) -> Poison:
    return Poison("event", code, message)
