"""Image events as senders write them, in every mode, and a way to send them.

In: what an event says. Out: :class:`Outgoing` records, and :func:`send`, which returns where each went.
"""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from kafka import KafkaProducer, TopicPartition
from PIL import Image

EVENT_TYPE = "io.synthgate.image.uploaded.v1"
SOURCE = "/tests/uploads"
FIRST_UPLOAD = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
MAX_REQUEST_BYTES = 40 * 1024 * 1024


@dataclass(frozen=True)
class Outgoing:
    """One record for the input topic."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None
    partition: int | None = None

    def on(self, partition: int) -> "Outgoing":
        """The same record for that partition."""
        return replace(self, partition=partition)


def uploaded_at(minutes: int) -> str:
    """An upload's time, that many minutes after the first."""
    return (FIRST_UPLOAD + timedelta(minutes=minutes)).isoformat()


def picture(seed: int, *, side_px: int = 40, file_format: str = "PNG") -> bytes:
    """A small image; another seed gives other bytes and another score."""
    random = np.random.default_rng(seed)
    colour_3 = random.integers(0, 256, 3, dtype=np.uint8)
    pixels_HWC = np.tile(colour_3, (side_px, side_px, 1))
    pixels_HWC[:4] = random.integers(0, 256, (4, side_px, 3), dtype=np.uint8)
    return encoded(pixels_HWC, file_format)


def encoded(pixels_HWC: "np.typing.NDArray[np.uint8]", file_format: str = "PNG") -> bytes:
    """The picture's file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, file_format)
    return buffer.getvalue()


def structured(
    content_id: str,
    *,
    image: bytes | None = None,
    uri: str | None = None,
    event_id: str | None = None,
    minutes: int = 0,
    headers: tuple[tuple[str, bytes | None], ...] = (),
    **data: str,
) -> Outgoing:
    """A CloudEvent in JSON, with the image's bytes in base64 or its URI."""
    inside: dict[str, object] = {"content_id": content_id, **data}
    if image is not None:
        inside["data_base64"] = base64.b64encode(image).decode()
    if uri is not None:
        inside["uri"] = uri
    event = {
        "specversion": "1.0",
        "id": event_id or f"event-{content_id}",
        "source": SOURCE,
        "type": EVENT_TYPE,
        "time": uploaded_at(minutes),
        "data": inside,
    }
    return Outgoing(content_id.encode(), json.dumps(event).encode(), headers)


def binary(
    content_id: str, image: bytes, *, event_id: str | None = None, minutes: int = 0
) -> Outgoing:
    """A CloudEvent in headers; the record's value is the image."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": event_id or f"event-{content_id}",
        "ce_source": SOURCE,
        "ce_type": EVENT_TYPE,
        "ce_time": uploaded_at(minutes),
        "content-type": "image/png",
    }
    headers = tuple((name, text.encode()) for name, text in attributes.items())
    return Outgoing(content_id.encode(), image, headers)


def s3_notification(bucket: str, key: str, *, name: str = "s3:ObjectCreated:Put") -> Outgoing:
    """What a bucket sends when an object was put there; ``key`` is encoded as S3 encodes it."""
    entity = {"bucket": {"name": bucket}, "object": {"key": key, "versionId": "3", "size": 7}}
    record = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "eventTime": "2026-11-01T12:00:00.000Z",
        "eventName": name,
        "s3": {"s3SchemaVersion": "1.0", **entity},
    }
    document = {"EventName": name, "Key": f"{bucket}/{key}", "Records": [record]}
    return Outgoing(f"{bucket}/{key}".encode(), json.dumps(document).encode())


def stream(count: int, *, prefix: str = "c", repeats: int = 1) -> list[Outgoing]:
    """Many small events; each image is sent under ``repeats`` content ids."""
    return [
        binary(f"{prefix}-{number}", picture(number // repeats, side_px=32))
        for number in range(count)
    ]


class _Headers(list[tuple[str, bytes | None]]):
    """Headers whose values may be null: kafka-python writes them but cannot count their bytes.

    It counts only where the list is true.
    """

    def __bool__(self) -> bool:
        return False


def send(bootstrap: str, topic: str, events: Sequence[Outgoing]) -> list[tuple[int, int]]:
    """Send the events in order; returns partition and offset of each.

    Goes beneath the producer's own checks, since other clients write records that it refuses
    (header values that are null, records with neither key nor value).
    """
    producer = KafkaProducer(bootstrap_servers=bootstrap, max_request_size=MAX_REQUEST_BYTES)
    try:
        producer._wait_on_metadata(topic, 10_000)
        futures = []
        for event in events:
            chosen = producer._partition(
                topic, event.partition, event.key, event.value, event.key, event.value
            )
            appended = producer._accumulator.append(
                TopicPartition(topic, chosen),
                event.timestamp_ms,
                event.key,
                event.value,
                _Headers(event.headers),
                abort_on_new_batch=False,
            )
            futures.append(appended[0])
            producer._sender.wakeup()
        found = [future.get(timeout=30) for future in futures]
        return [(each.partition, each.offset) for each in found]
    finally:
        producer.close(timeout=5)
