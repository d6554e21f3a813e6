"""What travels between the stages: one frozen step a stage, each holding the one before.

Times are seconds of the injected monotonic clock but ``*_ms``, which are durations in milliseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from engines.preprocess import Prepared
from worker.engine import Engine
from worker.errors import Poison
from worker.event import ImageEvent, Record
from worker.verdict import Band

Clock = Callable[[], float]
# The code of a dead letter that has nothing of its record but the place.
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class AckToken:
    """The right to acknowledge one record: void once its partition has moved away.

    ``epoch`` counts the assignments of the partition to this worker.
    """

    topic: str
    partition: int
    offset: int
    epoch: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A record that this worker has taken on."""

    token: AckToken
    record: Record
    taken_at_s: float
    queued_ms: float


@dataclass(frozen=True, slots=True)
class Fetched:
    """An event whose image's bytes are known; the bytes themselves go no further than decode."""

    taken: Taken
    event: ImageEvent
    sha256: str
    size_bytes: int
    fetch_ms: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image, cropped for one engine, ready for a batch of that engine's."""

    fetched: Fetched
    engine: Engine
    image: Prepared
    decode_ms: float
    decoded_at_s: float


@dataclass(frozen=True, slots=True)
class Score:
    """What the engine said of an image's bytes: all that the score cache keeps."""

    logit: float
    mime: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class ScoreKey:
    """Whose score of which bytes."""

    sha256: str
    engine_id: str


@dataclass(frozen=True, slots=True)
class Scored:
    """An image with its score, fresh from the engine or from the cache."""

    fetched: Fetched
    engine: Engine
    score: Score
    from_cache: bool
    decode_ms: float
    infer_ms: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The band and why."""

    probability: float
    band: Band
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decided:
    """An image with its decision, ready to be published."""

    scored: Scored
    decision: Decision
    decided_at_s: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """A poison record on its way to the dead-letter topic. ``event`` is None if it was unreadable."""

    taken: Taken
    event: ImageEvent | None
    stage: str
    code: str
    message: str
    attempts: int

    @classmethod
    def because(cls, error: Poison, taken: Taken, event: ImageEvent | None) -> Self:
        """The rejection that a poison error means."""
        return cls(taken, event, error.stage, error.code, error.message, error.attempts)


Outcome = Decided | Rejected
