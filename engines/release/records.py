"""A channel's history: one record a change, and the last one is the channel.

In: a store. Out: ``Change`` records. Errors: ``ReleaseError``.

The record is the pointer and the audit line in one object, written once under the next number. So no
change lacks its line, no line tells of a change that was not made, and of two who change a channel at
the same time one finds the number taken.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from engines.bundle.manifest import Part, Positive, Semver, Sha256, Slug, UtcTime
from engines.release.store import ReleaseError, Store, create_or_same

Count = Annotated[int, Field(ge=1)]


class Side(Part):
    """One of the two versions whose time was taken.

    Attributes:
        version: its version.
        runtime: what this machine picked for it.
        precision: what that computes in.
        crops: of a whole image.
        image_ms: the median time of an image.
    """

    version: str
    runtime: str
    precision: str
    crops: Count
    image_ms: Positive

    def __str__(self) -> str:
        crops = "1 crop" if self.crops == 1 else f"{self.crops} crops"
        return f"{self.image_ms:.3g} ms ({self.runtime} {self.precision}, {crops})"


class Latency(Part):
    """The candidate's time of an image as a multiple of the other's, timed in turns.

    Attributes:
        ratio: the median of the pairs' ratios.
        low: the lower end of its interval, of at least 99 %.
        high: the upper end.
        pairs: how many there are.
        images: in a batch.
        candidate: the one that is to be promoted.
        in_place: the one that it would follow.
    """

    ratio: Positive
    low: Positive
    high: Positive
    pairs: Count
    images: Count
    candidate: Side
    in_place: Side

    def __str__(self) -> str:
        return (
            f"{self.ratio:.3g} ({self.low:.3g} to {self.high:.3g}, {self.pairs} pairs, batches of "
            f"{self.images}) times the latency an image: {self.candidate} after {self.in_place}"
        )


class NoLatency(Part):
    """Why no time was taken.

    Attributes:
        why: in words.
        against: whether that speaks against the candidate: it was to be timed, and could not be.
    """

    why: str
    against: bool = False

    def __str__(self) -> str:
        return f"latency not compared: {self.why}"


class Agreed(Part):
    """One file on one runtime against the golden outputs.

    Attributes:
        runtime: where.
        precision: what it computes in.
        path: the file.
        max_difference: of a logit.
        tolerance: of that precision.
        changed: at most so many decisions are other ones at a threshold,
        of: of so many.
    """

    runtime: str
    precision: str
    path: str
    max_difference: float
    tolerance: float
    changed: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=0)]

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision} ({self.path})"


class Parity(Part):
    """The candidate on every runtime that the machine of the promotion has.

    Attributes:
        checked: what agrees.
        problems: what does not, or cannot be loaded, and why.
        not_checked: what cannot run on that machine, and why.
    """

    checked: tuple[Agreed, ...] = ()
    problems: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()

    def __str__(self) -> str:
        checked = ", ".join(map(str, self.checked)) or "nothing"
        left = "".join(f"; not checked here: {one}" for one in self.not_checked)
        return f"golden outputs agree on {checked}{left}"


class Measured(Part):
    """All of it."""

    latency: Latency | NoLatency
    parity: Parity

    def __str__(self) -> str:
        return f"{self.latency}; {self.parity}"


Channel = Literal["stable", "canary", "shadow"]
CHANNELS: Final[tuple[Channel, ...]] = ("stable", "canary", "shadow")
_DIGITS: Final = 8


class Version(Part):
    """One immutable version, by its name and by the digest of its manifest."""

    name: Slug
    version: Semver
    manifest_sha256: Sha256

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Change(Part):
    """Who moved a channel, when, from where to where, why, what was measured and what the gate found.

    ``measured`` is None for a rollback, and in records of releases that measured nothing.
    """

    schema_version: Literal[1] = 1
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    serial: Annotated[int, Field(ge=1)]
    channel: Channel
    action: Literal["promote", "rollback"]
    at: UtcTime
    who: Annotated[str, Field(min_length=1)]
    before: Version | None
    after: Version
    reason: str
    forced: bool = False
    findings: tuple[str, ...] = ()
    signed_by: str | None
    measured: Measured | None = None


def parse_channel(text: str) -> Channel:
    """The channel of that name."""
    for one in CHANNELS:
        if one == text:
            return one
    raise ReleaseError(f"no channel is called {text!r}: choose one of {', '.join(CHANNELS)}")


def history(store: Store, channel: Channel) -> list[Change]:
    """All changes of a channel, oldest first."""
    return [_read(store, key) for key in store.keys(f"channels/{channel}")]


def current(store: Store, channel: Channel) -> Change | None:
    """The channel's last change: what it is at; None before its first."""
    keys = store.keys(f"channels/{channel}")
    return _read(store, keys[-1]) if keys else None


def append(store: Store, change: Change) -> None:
    """Make the change; ``ReleaseError`` if the channel was changed meanwhile."""
    key = f"channels/{change.channel}/{change.serial:0{_DIGITS}}.json"
    if not create_or_same(store, key, change.model_dump_json(indent=2).encode() + b"\n"):
        other = _read(store, key)
        raise ReleaseError(
            f"{change.channel} was changed meanwhile: {other.who} took it to {other.after} "
            f"({other.action}, {other.at:%Y-%m-%d %H:%M:%S} UTC). Look at it, and repeat if you still want to"
        )


def _read(store: Store, key: str) -> Change:
    data = store.read(key)
    if data is None:
        raise ReleaseError(f"{key} vanished from the store, which nothing here removes: restore it")
    try:
        return Change.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise ReleaseError(f"{key} is no record of a change ({first}): restore it") from error
