"""Image events: from a Kafka record to an :class:`ImageEvent`.

Reads CloudEvents 1.0 in structured mode (JSON) and in binary mode (``ce_`` headers), and object-created
notifications of S3 and MinIO without conversion.
Raises :class:`worker.errors.Poison` (stage ``event``); its message names the field and what is expected.
Source: CloudEvents 1.0 Kafka protocol binding; the S3 event notification message structure 2.x.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import quote, unquote_plus

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from worker.errors import Poison

CONTENT_ID_MAX_CHARS = 512
BUCKET_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C
CLOCK_ERROR_MAX = timedelta(minutes=5)

Model = TypeVar("Model", bound=BaseModel)


def _from_base64(value: object) -> bytes:
    """Decode strictly, white space apart: a lenient decoder would misread the URL-safe alphabet."""
    if not isinstance(value, str):
        raise ValueError("expected a string of base64")  # noqa: TRY004 (pydantic wants a ValueError)
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not standard base64 (RFC 4648, section 4, with padding)") from error


def _rfc3339(value: object) -> object:
    """Refuse numbers: they could be seconds or milliseconds, and the standard has neither."""
    if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\d[Tt ]", value):
        raise ValueError("expected an RFC 3339 time, such as 2026-01-31T12:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC the time lies outside the years 1 to 9999") from error


NonEmpty = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
ContentId = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=CONTENT_ID_MAX_CHARS, pattern=r"^[^\x00-\x1f\x7f]+$"
    ),
]
Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{64}$", to_lower=True)]
Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_in_utc)]
Base64Image = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
# A bucket becomes the host of an s3 URI, so it must not bring a path or a port along.
Bucket = Annotated[str, StringConstraints(pattern=BUCKET_PATTERN, max_length=255)]
# Built once: compiling an adapter takes longer than reading an event.
_SHA256 = TypeAdapter[str](Sha256Hex)
_CONTENT_ID = TypeAdapter[str](ContentId)


class ImageData(BaseModel):
    """The ``data`` of an image event: the content and where its bytes are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    content_id: ContentId = Field(description="identifies the content in the sender's system")
    uri: NonEmpty | None = Field(None, description="https, s3 or file URI of the image")
    data_base64: Base64Image | None = Field(None, description="the image itself")
    sha256: Sha256Hex | None = Field(None, description="SHA-256 of the image's bytes, hex")
    mime: NonEmpty | None = Field(None, description="media type as the sender states it")
    uploaded_at: Moment | None = Field(None, description="when the image was uploaded")


class ImageUploaded(BaseModel):
    """A CloudEvent of type ``io.synthgate.image.uploaded.v1`` in structured mode."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: Literal["1.0"]
    id: NonEmpty
    source: NonEmpty
    type: Literal["io.synthgate.image.uploaded.v1"]
    subject: ContentId | None = None
    time: Moment | None = None
    datacontenttype: NonEmpty | None = None
    traceparent: str | None = None
    data: ImageData | None = None
    data_base64: Base64Image | None = Field(None, description="the image itself")


class S3Bucket(BaseModel):
    """The bucket of a notification."""

    name: Bucket


class S3Object(BaseModel):
    """The object of a notification; its key is URL-encoded."""

    key: NonEmpty
    # Part of the event's id, so of the verdict: without a limit it could outgrow the topic's records.
    version_id: str | None = Field(None, alias="versionId", max_length=2048)
    sequencer: str | None = Field(None, max_length=2048)
    e_tag: str | None = Field(None, alias="eTag", max_length=2048)


class S3Entity(BaseModel):
    """Bucket and object."""

    bucket: S3Bucket
    object: S3Object


class S3Record(BaseModel):
    """One change of one object."""

    event_name: str = Field(alias="eventName", max_length=64)
    event_time: Moment = Field(alias="eventTime")
    event_source: NonEmpty = Field("aws:s3", alias="eventSource")
    s3: S3Entity


class S3Notification(BaseModel):
    """An event notification of S3 or MinIO."""

    records: list[S3Record] = Field(alias="Records", min_length=1)


@dataclass(frozen=True, slots=True)
class Record:
    """The parts of a Kafka record that the worker keeps: enough to return it whole as a dead letter."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]  # Kafka allows headers without a value

    @property
    def size_bytes(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")


@dataclass(frozen=True, slots=True)
class ImageEvent:
    """One uploaded image: either its bytes (``payload``) or their location (``uri``)."""

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
        """This event with its time limited to ``now_s`` (seconds since the epoch) plus a clock error.

        Otherwise an event from the year 9999 would keep every later verdict of its content out of Redis.
        """
        latest = datetime.fromtimestamp(now_s, tz=UTC) + CLOCK_ERROR_MAX
        return self if self.event_time <= latest else replace(self, event_time=latest)


def sortable_time(moment: datetime) -> str:
    """UTC with microseconds and a fixed width, so that the order as text is the order in time."""
    # Not strftime: its %Y has no leading zeros, so year 999 would sort after year 2026.
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


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
    payload = _single_payload(uri, image, event.data_base64, data.data_base64 if data else None)
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


def _single_payload(uri: str | None, *candidates: bytes | None) -> bytes | None:
    """The image's bytes, or None where there is a URI instead; empty bytes do not count."""
    payloads = [payload for payload in candidates if payload]
    if len(payloads) + (uri is not None) == 1:
        return payloads[0] if payloads else None
    raise _poison(
        "two_images" if payloads else "no_image",
        "an image event carries either a uri (data.uri) or the image's bytes (the record's value in "
        "binary mode, data_base64); this one has "
        f"{'more than one' if payloads else 'none'} of them",
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
            f"{entry.event_name} is not an object-created notification: subscribe the topic to "
            "s3:ObjectCreated:* only",
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
    """The content id of an event without ``data``: the CloudEvent's subject, or the record's key."""
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
            "the record's key is not UTF-8 and cannot serve as the content id: send the id as "
            "ce_subject or in data.content_id",
        ) from error


def _record_time(record: Record) -> datetime:
    try:
        return datetime.fromtimestamp(max(record.timestamp_ms, 0) / 1000, tz=UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise _poison(
            "timestamp",
            f"the record's timestamp {record.timestamp_ms} is not a time in milliseconds: correct "
            "the producer, or send the event's time",
        ) from error


def _trace_id(traceparent: str | None) -> str | None:
    """The trace id in a W3C ``traceparent`` (version-traceid-spanid-flags); None if it is malformed."""
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
        raise _poison("invalid_event", _first_problem(error, "the event")) from error


def _checked(adapter: TypeAdapter[str], value: str, name: str, code: str) -> str:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _poison(code, _first_problem(error, name)) from error


def _first_problem(error: ValidationError, name: str) -> str:
    """Field and expectation of the first problem, without the input itself."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or name
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _poison(code: str, message: str) -> Poison:
    return Poison("event", code, message)
