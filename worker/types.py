"""What travels between the stages: one :class:`Event` envelope, and one payload for each stage.

    Received ──> intake ──> Decoded or Scored ──> infer ──> Decided ──> publish ──> AckToken
                   └────────── Rejected ──────────────┴───> Rejected ────┘

Every payload holds its ``event``. A stage passes on payloads that it does not handle. All values are frozen. Times are
seconds of the injected monotonic clock; names in ``_ms`` are durations in milliseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from engines.preprocess import DecodedImage, Prepared
from worker.engine import Engine
from worker.errors import Poison
from worker.event import ImageEvent, Record
from worker.verdict import Band

Clock = Callable[[], float]
# The code of a dead letter whose record the client could not read.
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class AckToken:
    """The right to acknowledge one record; void once its partition has moved to another worker.

    ``epoch`` counts the assignments of the partition to this worker.
    """

    topic: str
    partition: int
    offset: int
    epoch: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Timings:
    """When this worker received an event, and how long each stage took.

    ``queued_ms`` runs from the record's timestamp until it was received.
    """

    received_at_s: float
    queued_ms: float
    fetch_ms: float = 0.0
    decode_ms: float = 0.0
    infer_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Event:
    """The envelope of one record on its way from consume to commit."""

    token: AckToken
    record: Record
    timings: Timings


@dataclass(frozen=True, slots=True)
class UploadedImage:
    """The image of an event, without its bytes: they go no further than decode."""

    upload: ImageEvent
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Score:
    """The engine's output for an image's bytes: the value of the score cache."""

    logit: float
    mime: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class ScoreKey:
    """The key of the score cache: an image's bytes and an engine."""

    sha256: str
    engine_id: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The band and its reasons; ``probability`` is P(AI-generated) in [0, 1]."""

    probability: float
    band: Band
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Received:
    """Payload of intake: a record from the topic."""

    event: Event


@dataclass(frozen=True, slots=True)
class Decoded:
    """Payload of infer: an image cropped for one engine, which is acquired until the image is scored."""

    event: Event
    image: UploadedImage
    engine: Engine
    crops: Prepared
    decoded_at_s: float


@dataclass(frozen=True, slots=True)
class Scored:
    """Payload of infer: an image with its score, from the engine or from the cache."""

    event: Event
    image: UploadedImage
    engine: Engine
    score: Score
    from_cache: bool


@dataclass(frozen=True, slots=True)
class Decided:
    """Payload of publish: an image with its decision."""

    event: Event
    image: UploadedImage
    engine: Engine
    score: Score
    from_cache: bool
    decision: Decision
    decided_at_s: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """Payload of publish: a poison record. ``upload`` is None if the event could not be read."""

    event: Event
    upload: ImageEvent | None
    stage: str
    code: str
    message: str
    attempts: int

    @classmethod
    def because(cls, error: Poison, event: Event, upload: ImageEvent | None) -> Self:
        """The rejection that a poison error means."""
        return cls(event, upload, error.stage, error.code, error.message, error.attempts)


Outcome = Decided | Rejected
Payload = Received | Decoded | Scored | Outcome
Sink = Callable[[Payload], None]
# Called with every image once the primary path is done with it: its event, its digest, its bytes, and its pixels if
# the primary path decoded them. Neither blocks nor raises.
ShadowSink = Callable[[Event, UploadedImage, bytes, DecodedImage | None], None]


@dataclass(frozen=True, slots=True)
class Links:
    """Where a stage hands its payloads.

    Attributes:
        next: The stage that follows.
        requeue: Back to the first stage, for an event that must be read again.
        acknowledge: Marks a record as published; False if its partition has moved to another worker.
        shadow: Takes a copy of every image; None without a shadow.
    """

    next: Sink
    requeue: Sink
    acknowledge: Callable[[AckToken], bool]
    shadow: ShadowSink | None = None


class Stage(Protocol):
    """One step of the pipeline, with a thread of its own."""

    def submit(self, payload: Payload) -> None:
        """Take a payload; returns at once. Payloads for other stages go to ``links.next``."""
        ...

    def run(self) -> None:
        """Work until closed. Runs in the stage's thread; an error that leaves it ends the process."""
        ...

    def close(self) -> None:
        """End :meth:`run`. What is unfinished stays unacknowledged and is redelivered."""
        ...
