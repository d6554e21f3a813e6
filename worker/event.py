"""The image event: a Kafka record in, an :class:`ImageEvent` out.

Reads CloudEvents 1.0 in structured mode (JSON) and in binary mode (``ce_`` headers), and object-created
notifications of S3 and MinIO as they are.
Errors: :class:`worker.errors.Poison` at stage ``event``, naming the field and what is expected.
Source: CloudEvents 1.0 Kafka protocol binding; the S3 event notification message structure 2.x.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote, unquote_plus

from pydantic import (
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from worker.errors import Poison

EVENT_TYPE = "io.synthgate.image.uploaded.v1"
CONTENT_ID_MAX_CHARS = 512

NonEmpty = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
ContentId = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=CONTENT_ID_MAX_CHARS, pattern=r"^[^\x00-\x1f\x7f]+$"
    ),
]
Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", to_lower=True)]

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Record:
    """What the worker keeps of a Kafka record: enough to return it, whole, as a dead letter."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

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


class ImageData(BaseModel):
    """The ``data`` of an image event: the content and where its bytes are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    content_id: ContentId = Field(description="identifies the content in the sender's system")
    uri: NonEmpty | None = Field(None, description="https, s3 or file URI of the image")
    data_base64: Base64Bytes | None = Field(None, description="the image itself")
    sha256: Sha256Hex | None = Field(None, description="SHA-256 of the image's bytes, hex")
    mime: NonEmpty | None = Field(None, description="media type the sender believes in")
    uploaded_at: AwareDatetime | None = Field(None, description="when the image was uploaded")


class ImageUploaded(BaseModel):
    """A CloudEvent of type ``io.synthgate.image.uploaded.v1`` in structured mode."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: Literal["1.0"]
    id: NonEmpty
    source: NonEmpty
    type: Literal["io.synthgate.image.uploaded.v1"]
    subject: ContentId | None = None
    time: AwareDatetime | None = None
    datacontenttype: NonEmpty | None = None
    traceparent: str | None = None
    data: ImageData | None = None
    data_base64: Base64Bytes | None = None


class _S3Bucket(BaseModel):
    name: NonEmpty


class _S3Object(BaseModel):
    key: NonEmpty
    version_id: str | None = Field(None, alias="versionId")
    sequencer: str | None = None
    e_tag: str | None = Field(None, alias="eTag")


class _S3Entity(BaseModel):
    bucket: _S3Bucket
    object: _S3Object


class _S3Record(BaseModel):
    event_name: str = Field(alias="eventName")
    event_time: AwareDatetime = Field(alias="eventTime")
    event_source: str = Field("aws:s3", alias="eventSource")
    s3: _S3Entity


class _S3Notification(BaseModel):
    records: list[_S3Record] = Field(alias="Records", min_length=1)


def parse_event(record: Record) -> ImageEvent:
    """Read one record as an image event.

    Raises:
        Poison: The record is not an image event; the message names what is missing or wrong.
    """
    if not record.value:
        raise _poison("empty", "the record has no value: send an image event")
    headers = {name.lower(): value for name, value in record.headers}
    content_type = _text(headers, "content-type") or ""
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
        return _from_s3(_validated(_S3Notification, document))
    raise _poison(
        "unknown_format",
        "the record is JSON but neither a CloudEvent (no specversion) nor a bucket notification "
        "(no Records)",
    )


def _from_cloudevent(
    record: Record, event: ImageUploaded, headers: Mapping[str, bytes], image: bytes | None
) -> ImageEvent:
    data = event.data
    payload = image or event.data_base64 or (data.data_base64 if data else None)
    uri = data.uri if data else None
    if (payload is None) == (uri is None):
        raise _poison(
            "no_image" if uri is None else "two_images",
            "an image event carries either a uri or the image's bytes, "
            f"this one has {'neither' if uri is None else 'both'}",
        )
    time = event.time or (data.uploaded_at if data else None)
    trace = event.traceparent or _text(headers, "traceparent") or _text(headers, "ce_traceparent")
    return ImageEvent(
        event_id=event.id,
        source=event.source,
        content_id=data.content_id if data else _content_id(record, event.subject),
        event_time=time.astimezone(UTC) if time else _record_time(record),
        uri=uri,
        payload=payload,
        sha256=(data.sha256 if data else None) or _text(headers, "ce_sha256"),
        mime=data.mime if data and data.mime else event.datacontenttype,
        trace_id=_trace_id(trace),
    )


def _from_s3(notification: _S3Notification) -> ImageEvent:
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
        event_time=entry.event_time.astimezone(UTC),
        uri=f"s3://{bucket}/{quote(key)}",
    )


def _content_id(record: Record, subject: str | None) -> str:
    """Without ``data`` the content id is the CloudEvent's subject or the record's key."""
    if subject:
        return subject
    try:
        key = (record.key or b"").decode()
    except UnicodeDecodeError:
        key = ""
    if not key or len(key) > CONTENT_ID_MAX_CHARS or not key.isprintable():
        raise _poison(
            "content_id",
            "the content id is missing: send it as the record's key, as ce_subject or in data.content_id",
        )
    return key


def _record_time(record: Record) -> datetime:
    return datetime.fromtimestamp(max(record.timestamp_ms, 0) / 1000, tz=UTC)


def _trace_id(traceparent: str | None) -> str | None:
    """The trace id of a W3C ``traceparent`` (version-traceid-spanid-flags), if it is one."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else None  # noqa: PLR2004 (W3C)


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
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the event"
        raise _poison("invalid_event", f"{where}: {first['msg']}") from error


def _poison(code: str, message: str) -> Poison:
    return Poison("event", code, message)
