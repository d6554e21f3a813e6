"""The events of the demo: CloudEvents 1.0 over Kafka, every way the contract allows.

In: pictures and faults. Out: a :class:`Plan`: the events, and the order in which to send them.
Images travel as a record's value (binary mode), as ``data_base64`` and by ``uri`` (structured
mode); about one event in ten repeats the bytes of another, and a few events are sent twice.
"""

import base64
import json
import mimetypes
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from deploy.embedded.demo.faults import Fault
from deploy.embedded.demo.pictures import Label, Picture

EVENT_TYPE = "io.synthgate.image.uploaded.v1"
SOURCE = "/synthgate/demo"
SEED = 20_261_122
INLINE_MAX_BYTES = 256 * 1024  # what is larger goes by uri: the broker keeps all in memory
SENT_TWICE = 2
REPEAT_EVERY = 10

Expected = Literal["verdict", "dead_letter", "either"]
Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Wire:
    """A Kafka record as it is sent."""

    key: bytes
    value: bytes
    headers: Headers


@dataclass(frozen=True)
class Event:
    """An event and what must become of it; ``code`` is that of the dead letter expected."""

    content_id: str
    event_id: str
    kind: str
    expected: Expected
    wire: Wire
    label: Label | None = None
    sha256: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Plan:
    """The distinct events, and the records to send: some events twice."""

    events: tuple[Event, ...]
    sends: tuple[Wire, ...]

    @property
    def duplicate_sends(self) -> int:
        """How many records repeat an event that was sent before."""
        return len(self.sends) - len(self.events)


def distinct_pictures_for(events: int, fault_count: int) -> int:
    """How many distinct pictures a plan of so many events needs."""
    good = max(events - fault_count, 1)
    return good - good // REPEAT_EVERY


def make_plan(
    pictures: Sequence[Picture],
    broken: Sequence[Fault],
    *,
    serve: Callable[[Path], str],
    expected: Expected,
) -> Plan:
    """Events for every picture, some repeats, and every fault, in a shuffled but fixed order.

    Args:
        pictures: With distinct bytes.
        broken: Faults to mix in.
        serve: From a file to an http URI that gives its bytes.
        expected: What becomes of a picture's event: "either" where it may be broken itself.
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
    sends = [event.wire for event in events]
    for event in twice:
        first = sends.index(event.wire)
        sends.insert(rng.randint(first + 1, len(sends)), event.wire)
    return Plan(tuple(events), tuple(sends))


def _good_event(
    number: int, picture: Picture, serve: Callable[[Path], str], expected: Expected
) -> Event:
    content_id = f"demo-{number:05d}"
    mime = mimetypes.guess_type(picture.path.name)[0] or "application/octet-stream"
    way = number % 10
    if picture.path.stat().st_size > INLINE_MAX_BYTES:
        way = 7 + way % 3
    match way:
        case 0 | 1 | 2 | 3:
            kind, wire = "bytes", binary(content_id, picture.path.read_bytes(), mime)
        case 4 | 5 | 6:
            encoded = base64.b64encode(picture.path.read_bytes()).decode()
            kind, wire = "base64", structured(content_id, mime, data_base64=encoded)
        case 7 | 8:
            kind, wire = "http", structured(content_id, mime, uri=serve(picture.path))
        case _:
            kind, wire = "file", structured(content_id, mime, uri=picture.path.as_uri())
    return Event(
        content_id,
        _event_id(content_id),
        kind,
        expected,
        wire,
        label=picture.label,
        sha256=picture.sha256,
    )


def _broken_event(number: int, fault: Fault) -> Event:
    content_id = f"demo-{number:05d}"
    if fault.value is not None:
        content_type = (("content-type", b"application/cloudevents+json"),)
        wire = Wire(content_id.encode(), fault.value, content_type)
    elif fault.uri is not None:
        wire = structured(content_id, fault.mime, uri=fault.uri)
    else:
        wire = binary(content_id, fault.image or b"", fault.mime, fault.sha256)
    return Event(
        content_id, _event_id(content_id), fault.name, "dead_letter", wire, code=fault.code
    )


def binary(content_id: str, image: bytes, mime: str, sha256: str | None = None) -> Wire:
    """CloudEvents' binary mode: the value is the image, the attributes are headers."""
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
    return Wire(content_id.encode(), image, encoded)


def structured(content_id: str, mime: str, **image: str) -> Wire:
    """CloudEvents' structured mode: one JSON document, with the image or its uri in ``data``."""
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
    return Wire(content_id.encode(), json.dumps(document).encode(), headers)


def _event_id(content_id: str) -> str:
    return f"upload-of-{content_id}"


def _now() -> str:
    return datetime.now(UTC).isoformat()
