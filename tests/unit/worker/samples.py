"""Plain values that many of the worker's tests start from."""

import base64
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import numpy as np
import pytest

from engines.preprocess import Prepared
from tests.support.bundles import encode, gradient_HWC
from worker.engine import Engine
from worker.errors import Poison
from worker.event import ImageEvent, Record, parse_event
from worker.types import (
    AckToken,
    Decided,
    Decision,
    Event,
    Rejected,
    Score,
    Timings,
    UploadedImage,
)

TIMESTAMP_MS = 1_770_000_000_000  # 2026-02-02T02:40:00Z
EVENT_TIME = datetime(2026, 2, 2, 2, 40, tzinfo=UTC)
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


def jpeg_bytes(height_px: int = 48, width_px: int = 64) -> bytes:
    """A real JPEG."""
    return encode(gradient_HWC(height_px, width_px), "JPEG")


def record(
    value: bytes | None = b"{}",
    *,
    key: bytes | None = b"content-1",
    headers: Iterable[tuple[str, bytes | None]] = (),
    timestamp_ms: int = TIMESTAMP_MS,
    offset: int = 7,
    partition: int = 2,
    topic: str = "images.uploaded",
) -> Record:
    """A Kafka record."""
    return Record(topic, partition, offset, timestamp_ms, key, value, tuple(headers))


def cloudevent(data: Mapping[str, object] | None = None, **attributes: object) -> dict[str, object]:
    """An image event in structured mode; attributes replace or (None) are kept as null."""
    if data is None:
        data = {"content_id": "content-1", "uri": "https://images.example/1.jpg"}
    return {
        "specversion": "1.0",
        "id": "event-1",
        "source": "/uploads",
        "type": "io.synthgate.image.uploaded.v1",
        "data": data,
    } | attributes


def structured(document: object, **options: object) -> Record:
    """The record of an event in structured mode."""
    headers = (("content-type", b"application/cloudevents+json; charset=utf-8"),)
    return record(json.dumps(document).encode(), headers=headers, **options)  # type: ignore[arg-type]


def binary_headers(**attributes: str) -> list[tuple[str, bytes | None]]:
    """The headers of an event in binary mode; ``content_type`` is the one without ``ce_``."""
    merged = {
        "specversion": "1.0",
        "id": "event-1",
        "source": "/uploads",
        "type": "io.synthgate.image.uploaded.v1",
    } | attributes
    content_type = merged.pop("content_type", "image/jpeg")
    named: list[tuple[str, bytes | None]] = [
        (f"ce_{name}", value.encode()) for name, value in merged.items()
    ]
    return [*named, ("content-type", content_type.encode())]


def base64_text(data: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(data).decode()


def event(**changes: object) -> ImageEvent:
    """An event as it was read."""
    fields: dict[str, object] = {
        "event_id": "event-1",
        "source": "/uploads",
        "content_id": "content-1",
        "event_time": EVENT_TIME,
        "uri": "https://images.example/1.jpg?signature=hidden",
    }
    return ImageEvent(**(fields | changes))  # type: ignore[arg-type]


def envelope(source: Record | None = None, *, queued_ms: float = 5.0, **ms: float) -> Event:
    """A record that was received at second 100; ``ms`` are timings."""
    source = record() if source is None else source
    token = AckToken(source.topic, source.partition, source.offset, 1, source.size_bytes)
    return Event(token, source, Timings(100.0, queued_ms, **ms))


def image_of(upload: ImageEvent | None = None, sha256: str = "ab" * 32) -> UploadedImage:
    """The image of an event, of 1234 bytes."""
    return UploadedImage(event() if upload is None else upload, sha256, 1234)


def rejected(source: Record | None = None, **changes: object) -> Rejected:
    """A poison record."""
    fields: dict[str, object] = {
        "event": envelope(source),
        "upload": None,
        "stage": "decode",
        "code": "truncated",
        "message": "the image ends early: send it whole",
        "attempts": 1,
    }
    return Rejected(**(fields | changes))  # type: ignore[arg-type]


def decided(
    engine: Engine,
    *,
    from_cache: bool = False,
    probability: float = 0.75,
    image_event: ImageEvent | None = None,
) -> Decided:
    """An image with the decision of that engine, made at second 100.5."""
    score = Score(1.25, "image/jpeg", 64, 48)
    decision = Decision(probability, "review", ("classifier_above_review_threshold",))
    timed = envelope(fetch_ms=12.0, decode_ms=3.0, infer_ms=4.0)
    image = image_of(image_event)
    return Decided(timed, image, engine, score, from_cache, decision, 100.5)


def prepared(crops: int = 1, crop_px: int = 32, level: int = 128) -> Prepared:
    """An image ready for the engine: ``crops`` plain crops of one grey level."""
    image_NHWC = np.full((crops, crop_px, crop_px, 3), level, dtype=np.uint8)
    return Prepared(image_NHWC, "image/png", 2 * crop_px, crop_px)


def poison(source: Record) -> Poison:
    """The Poison that reading this record raises, at stage ``event``."""
    with pytest.raises(Poison) as caught:
        parse_event(source)
    assert caught.value.stage == "event"
    return caught.value
