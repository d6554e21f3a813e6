"""The demo's events: CloudEvents 1.0 over Kafka, in every form that the contract allows.

Images travel as a record's value (binary mode), as ``data_base64`` and by ``uri`` (structured mode). About one event
in ten repeats the bytes of another, a few events are sent twice, and a few are broken on purpose.
"""

import base64
import io
import json
import mimetypes
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from PIL import Image

from deploy.embedded.demo.pictures import DemoPicture, Label

EVENT_TYPE = "io.synthgate.image.uploaded.v1"
SOURCE = "/synthgate/demo"
SEED = 20_261_122
INLINE_MAX_BYTES = 256 * 1024  # larger images go by uri: the broker keeps every record in memory
SENT_TWICE = 2
REPEAT_EVERY = 10
BOMB_SIDE_PX = 30_000  # 900 million pixels, from a file of 110 KB
NOISE_SIGMA = 64

Expected = Literal["verdict", "dead_letter", "either"]
Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class OutgoingRecord:
    """A Kafka record to send."""

    key: bytes
    value: bytes
    headers: Headers


@dataclass(frozen=True)
class DemoEvent:
    """An event and its expected outcome; ``code`` is the expected error code of a dead letter."""

    content_id: str
    event_id: str
    kind: str
    expected: Expected
    record: OutgoingRecord
    label: Label | None = None
    sha256: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class BrokenImage:
    """A record that is broken on purpose, and the error code that its dead letter must carry.

    Exactly one of ``image`` (sent as the image's bytes), ``uri`` and ``value`` (sent as the whole
    record) is set.
    """

    name: str
    code: str
    image: bytes | None = None
    mime: str = "image/jpeg"
    uri: str | None = None
    value: bytes | None = None
    sha256: str | None = None


def broken_images(missing_uri: str, refusing_uri: str) -> tuple[BrokenImage, ...]:
    """One of each kind.

    Args:
        missing_uri: A URI that is answered with 404.
        refusing_uri: A URI whose host refuses connections.
    """
    jpeg = _noise_jpeg()
    return (
        BrokenImage("truncated JPEG", "truncated", image=jpeg[: len(jpeg) * 3 // 5]),
        BrokenImage(
            "text file named .png", "unsupported_format", b"just a text file\n", "image/png"
        ),
        BrokenImage("decompression bomb", "too_many_pixels", _png_bomb(), "image/png"),
        BrokenImage("dead link", "not_found", uri=missing_uri),
        BrokenImage("dead host", "unreachable", uri=refusing_uri),
        BrokenImage(
            "malformed JSON", "malformed_json", value=b'{"specversion": "1.0", "id": "demo'
        ),
        BrokenImage("wrong SHA-256", "sha256_mismatch", image=jpeg, sha256="0" * 64),
    )


@dataclass(frozen=True)
class TrafficPlan:
    """The distinct events, and the records to send: some events twice."""

    events: tuple[DemoEvent, ...]
    sends: tuple[OutgoingRecord, ...]

    @property
    def duplicate_sends(self) -> int:
        """How many records repeat an earlier event."""
        return len(self.sends) - len(self.events)


def distinct_pictures_for(events: int, fault_count: int) -> int:
    """How many distinct pictures a plan with this number of events needs."""
    good = max(events - fault_count, 1)
    return good - good // REPEAT_EVERY


def make_plan(
    pictures: Sequence[DemoPicture],
    broken: Sequence[BrokenImage],
    *,
    serve: Callable[[Path], str],
    expected: Expected,
) -> TrafficPlan:
    """Events for every picture, some repeats, and every broken image, in a shuffled but fixed order.

    Args:
        pictures: With distinct bytes.
        broken: Broken images to mix in.
        serve: Returns the http URI of a file.
        expected: The outcome of a picture's event; "either" if the pictures may be broken themselves.
    """
    rng = random.Random(SEED)  # noqa: S311 (an order, not a secret)
    # n distinct pictures carry n // 9 repeats, so that repeats are a tenth of the whole.
    repeats = [rng.choice(pictures) for _ in range(len(pictures) // (REPEAT_EVERY - 1))]
    events = [
        _good_event(number, picture, serve, expected)
        for number, picture in enumerate([*pictures, *repeats])
    ]
    twice = rng.sample(events, min(SENT_TWICE, len(events)))
    events += [_broken_event(len(events) + index, fault) for index, fault in enumerate(broken)]
    rng.shuffle(events)
    sends = [event.record for event in events]
    for event in twice:
        first = sends.index(event.record)
        sends.insert(rng.randint(first + 1, len(sends)), event.record)
    return TrafficPlan(tuple(events), tuple(sends))


def _good_event(
    number: int, picture: DemoPicture, serve: Callable[[Path], str], expected: Expected
) -> DemoEvent:
    content_id = f"demo-{number:05d}"
    mime = mimetypes.guess_type(picture.path.name)[0] or "application/octet-stream"
    form = number % 10
    if picture.path.stat().st_size > INLINE_MAX_BYTES:
        form = 7 + form % 3
    match form:
        case 0 | 1 | 2 | 3:
            kind, record = "bytes", binary(content_id, picture.path.read_bytes(), mime)
        case 4 | 5 | 6:
            encoded = base64.b64encode(picture.path.read_bytes()).decode()
            kind, record = "base64", structured(content_id, mime, data_base64=encoded)
        case 7 | 8:
            kind, record = "http", structured(content_id, mime, uri=serve(picture.path))
        case _:
            kind, record = "file", structured(content_id, mime, uri=picture.path.as_uri())
    return DemoEvent(
        content_id,
        _event_id(content_id),
        kind,
        expected,
        record,
        label=picture.label,
        sha256=picture.sha256,
    )


def _broken_event(number: int, fault: BrokenImage) -> DemoEvent:
    content_id = f"demo-{number:05d}"
    if fault.value is not None:
        content_type = (("content-type", b"application/cloudevents+json"),)
        record = OutgoingRecord(content_id.encode(), fault.value, content_type)
    elif fault.uri is not None:
        record = structured(content_id, fault.mime, uri=fault.uri)
    else:
        record = binary(content_id, fault.image or b"", fault.mime, fault.sha256)
    return DemoEvent(
        content_id, _event_id(content_id), fault.name, "dead_letter", record, code=fault.code
    )


def binary(content_id: str, image: bytes, mime: str, sha256: str | None = None) -> OutgoingRecord:
    """Binary mode: the value is the image, the attributes are headers."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": _event_id(content_id),
        "ce_source": SOURCE,
        "ce_type": EVENT_TYPE,
        "ce_time": _now(),
        "ce_subject": content_id,
        "content-type": mime,
    }
    if sha256 is not None:
        headers["ce_sha256"] = sha256
    encoded = tuple((name, text.encode()) for name, text in headers.items())
    return OutgoingRecord(content_id.encode(), image, encoded)


def structured(content_id: str, mime: str, **image: str) -> OutgoingRecord:
    """Structured mode: one JSON document, with the image or its uri in ``data``."""
    document = {
        "specversion": "1.0",
        "id": _event_id(content_id),
        "source": SOURCE,
        "type": EVENT_TYPE,
        "time": _now(),
        "subject": content_id,
        "datacontenttype": "application/json",
        "data": {"content_id": content_id, "mime": mime, **image},
    }
    headers = (("content-type", b"application/cloudevents+json; charset=utf-8"),)
    return OutgoingRecord(content_id.encode(), json.dumps(document).encode(), headers)


def _event_id(content_id: str) -> str:
    return f"upload-of-{content_id}"


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _noise_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((256, 256), NOISE_SIGMA).convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _png_bomb() -> bytes:
    """A valid PNG, one bit per pixel, all black: decoding it without a limit needs gigabytes."""
    header = struct.pack(">IIBBBBB", BOMB_SIDE_PX, BOMB_SIDE_PX, 1, 0, 0, 0, 0)
    row = bytes(1 + BOMB_SIDE_PX // 8)
    compressor = zlib.compressobj(1)
    body = b"".join(compressor.compress(row) for _ in range(BOMB_SIDE_PX)) + compressor.flush()
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
