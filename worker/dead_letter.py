"""Dead letters: a poison record, whole, with the reason in headers beside it; and their way back.

The names are Kafka Connect's dead-letter context headers, which tools know, and ``synthgate.*`` for the rest.
Original key, value and headers stay untouched, so :func:`replayed_headers` can undo what was added.
"""

import hashlib
import uuid
from collections.abc import Sequence

from worker import __version__
from worker.event import Record
from worker.verdict import VERDICT_NAMESPACE
from worker.work import Rejected

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
REPLAYS = "synthgate.replays"

_OURS = frozenset(
    {TOPIC, PARTITION, OFFSET, STAGE, ERROR_CLASS, ERROR_MESSAGE, CODE, ATTEMPTS}
    | {WORKER_VERSION, DEAD_LETTER_ID, VALUE_OMITTED}
)


def dead_letter_id(record: Record) -> str:
    """A stable id of one record at one place, so that a redelivered poison record is known again.

    Timestamp and content are in it because a topic that was made anew starts at offset 0 again.
    """
    digest = hashlib.sha256((record.key or b"") + b"\0" + (record.value or b"")).hexdigest()
    place = f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp_ms}/{digest}"
    return str(uuid.uuid5(VERDICT_NAMESPACE, place))


def dead_letter_headers(rejected: Rejected) -> Headers:
    """The original headers, then where the record was and why it was rejected."""
    record = rejected.taken.record
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
    return [*record.headers, *((name, text.encode()) for name, text in added.items())]


def without_value(headers: Headers) -> Headers:
    """Headers of a dead letter that was too large with its value: the source offset still has it."""
    return [*headers, (VALUE_OMITTED, b"true")]


def header(headers: Sequence[tuple[str, bytes]], name: str) -> str | None:
    """The last value of a header, as text; None where there is none."""
    for key, value in reversed(headers):
        if key == name:
            return value.decode("utf-8", errors="replace")
    return None


def replayed_headers(headers: Sequence[tuple[str, bytes]]) -> Headers:
    """The original headers again, and how often the record has been sent back."""
    replays = int(header(headers, REPLAYS) or 0) + 1
    kept = [(name, value) for name, value in headers if name not in _OURS | {REPLAYS}]
    return [*kept, (REPLAYS, str(replays).encode())]
