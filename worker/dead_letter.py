"""Dead letters: a poison record unchanged, with the reason in added headers; and the headers of a replay.

The headers are the dead-letter context headers of Kafka Connect, which tools know, and ``synthgate.*``. Key,
value and headers stay unchanged, so :func:`replayed_headers` can remove what was added. Two exceptions, because
kafka-python sends nothing else: a header without a value gets an empty value, and so does a record with neither key
nor value.
"""

import hashlib
import uuid
from collections.abc import Iterable, Sequence

from worker import __version__
from worker.event import Record
from worker.types import UNREADABLE, Rejected
from worker.verdict import VERDICT_NAMESPACE

Headers = list[tuple[str, bytes]]

TOPIC = "__connect.errors.topic"
PARTITION = "__connect.errors.partition"
OFFSET = "__connect.errors.offset"
STAGE = "__connect.errors.stage"
ERROR_CLASS = "__connect.errors.exception.class.name"
ERROR_MESSAGE = "__connect.errors.exception.message"
CODE = "synthgate.error.code"
ATTEMPTS = "synthgate.error.attempts"
WORKER_VERSION = "synthgate.worker.version"
DEAD_LETTER_ID = "synthgate.dead_letter.id"
VALUE_OMITTED = "synthgate.value_omitted"
ORIGIN_OMITTED = "synthgate.key_and_headers_omitted"
REPLAYS = "synthgate.replays"

_OURS = frozenset(
    {TOPIC, PARTITION, OFFSET, STAGE, ERROR_CLASS, ERROR_MESSAGE, CODE, ATTEMPTS}
    | {WORKER_VERSION, DEAD_LETTER_ID, VALUE_OMITTED, ORIGIN_OMITTED}
)


def dead_letter_id(record: Record) -> str:
    """A stable id of one record at one offset, so that a redelivered poison record is recognised.

    Timestamp and content are part of it because a recreated topic starts at offset 0 again.
    """
    digest = hashlib.sha256((record.key or b"") + b"\0" + (record.value or b"")).hexdigest()
    place = f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp_ms}/{digest}"
    return str(uuid.uuid5(VERDICT_NAMESPACE, place))


def dead_letter_headers(rejected: Rejected) -> Headers:
    """The original headers, then where the record was and why it was rejected."""
    record = rejected.event.record
    added = {
        TOPIC: record.topic,
        PARTITION: str(record.partition),
        OFFSET: str(record.offset),
        STAGE: rejected.stage,
        ERROR_CLASS: "worker.errors.Poison",
        ERROR_MESSAGE: rejected.message,
        CODE: rejected.code,
        ATTEMPTS: str(rejected.attempts),
        WORKER_VERSION: __version__,
        DEAD_LETTER_ID: dead_letter_id(record),
    }
    # Headers of these two names that came with the event would describe this dead letter wrongly.
    if rejected.code == UNREADABLE:
        added[VALUE_OMITTED] = "true"
    original = [each for each in record.headers if each[0] not in (VALUE_OMITTED, ORIGIN_OMITTED)]
    return [*_sendable(original), *((name, text.encode()) for name, text in added.items())]


def sendable_value(record: Record) -> bytes | None:
    """The original value; empty instead of missing where the key is missing too."""
    return b"" if record.key is None and record.value is None else record.value


def shrunk(
    key: bytes | None, headers: Headers
) -> tuple[bytes | None, bytes | None, Headers] | None:
    """Smaller key, value and headers for a dead letter that was too large; the source offset keeps the whole record.

    First without its value, then without key and original headers; None if nothing is left to omit.
    """
    if header(headers, DEAD_LETTER_ID) is None or header(headers, ORIGIN_OMITTED) is not None:
        return None
    if header(headers, VALUE_OMITTED) is None:
        return key, None if key is not None else b"", [*headers, (VALUE_OMITTED, b"true")]
    # Ours were added last: if the sender used the same name, the last header is ours.
    last = {name: value for name, value in headers if name in _OURS}
    return None, b"", [*last.items(), (ORIGIN_OMITTED, b"true")]


def header(headers: Sequence[tuple[str, bytes | None]], name: str) -> str | None:
    """The last value of a header, as text; None if it is missing."""
    for key, value in reversed(headers):
        if key == name and value is not None:
            return value.decode("utf-8", errors="replace")
    return None


def replayed_headers(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """The original headers again, and how often the record has been sent back."""
    # The header may have come with the event: anything that is not a count counts as 0.
    before = header(headers, REPLAYS) or ""
    replays = int(before) + 1 if before.isascii() and before.isdigit() and len(before) < 10 else 1  # noqa: PLR2004 (digits)
    kept = [(name, value) for name, value in headers if name not in _OURS | {REPLAYS}]
    return [*_sendable(kept), (REPLAYS, str(replays).encode())]


def _sendable(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    return [(name, value or b"") for name, value in headers]
