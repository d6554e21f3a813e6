"""A channel's history: one record for each change, and the last one is the channel.

In: a store. Out: ``Change`` records with what was measured. Errors: ``ReleaseError``.

A record is pointer and audit line in one object, written once under the next number. So every change
has its line, every line records a change that was made. Of two simultaneous changes, one fails because its
number is taken.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from engines.bundle.manifest import Positive, Semver, Sha256, Slug, StrictModel, UtcTime
from engines.release.store import ReleaseError, Store, create_or_same

Count = Annotated[int, Field(ge=1)]
Channel = Literal["stable", "canary", "shadow"]
CHANNELS: Final[tuple[Channel, ...]] = ("stable", "canary", "shadow")
_DIGITS: Final = 8


class TimedVersion(StrictModel):
    """One of the two versions that were timed.

    Attributes:
        version: its version.
        runtime: the runtime that this machine chose for it.
        precision: what the runtime computes in.
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


class Latency(StrictModel):
    """The candidate's time per image, divided by that of the version in place.

    Attributes:
        ratio: the median of the pairs' ratios.
        low: the lower end of its interval, of at least 99 %.
        high: the upper end.
        pairs: the number of pairs.
        images: in a batch.
        candidate: the version to promote.
        in_place: the version that it would replace.
    """

    ratio: Positive
    low: Positive
    high: Positive
    pairs: Count
    images: Count
    candidate: TimedVersion
    in_place: TimedVersion

    def __str__(self) -> str:
        return (
            f"{self.ratio:.3g} ({self.low:.3g} to {self.high:.3g}, {self.pairs} pairs, batches of "
            f"{self.images}) times the latency per image: {self.candidate} after {self.in_place}"
        )


class NoLatency(StrictModel):
    """Why latency was not compared.

    Attributes:
        why: the reason.
        against: whether that counts against the candidate: it should have been timed.
    """

    why: str
    against: bool = False

    def __str__(self) -> str:
        return f"latency not compared: {self.why}"


class RuntimeAgreement(StrictModel):
    """A file that agrees with the golden outputs on a runtime.

    Attributes:
        runtime: the runtime's name.
        precision: what it computes in.
        path: the file.
        max_difference: the largest difference of a logit.
        tolerance: the largest difference allowed in that precision.
        changed: the most decisions that change at one threshold.
        of: the number of decisions.
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


class Parity(StrictModel):
    """The candidate on every runtime of the machine that promoted it.

    Attributes:
        checked: what agrees.
        problems: what does not agree or cannot be loaded, and why.
        not_checked: what cannot run on that machine, and why.
    """

    checked: tuple[RuntimeAgreement, ...] = ()
    problems: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()

    def __str__(self) -> str:
        checked = ", ".join(map(str, self.checked)) or "nothing"
        unchecked = "".join(f"; not checked here: {reason}" for reason in self.not_checked)
        return f"golden outputs agree on {checked}{unchecked}"


class Measurements(StrictModel):
    """What was measured of a candidate before its promotion."""

    latency: Latency | NoLatency
    parity: Parity

    def __str__(self) -> str:
        return f"{self.latency}; {self.parity}"


class Version(StrictModel):
    """An immutable version: its name, and the digest of its manifest."""

    name: Slug
    version: Semver
    manifest_sha256: Sha256

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Change(StrictModel):
    """Who moved a channel, when, from where to where, why, and what the gate measured.

    ``measured`` is None for a rollback.
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
    measured: Measurements | None = None


def parse_channel(text: str) -> Channel:
    """The channel of that name."""
    for channel in CHANNELS:
        if channel == text:
            return channel
    raise ReleaseError(f"no channel is called {text!r}: choose one of {', '.join(CHANNELS)}")


def history(store: Store, channel: Channel) -> list[Change]:
    """All changes of a channel, oldest first."""
    return [_read(store, key) for key in store.keys(f"channels/{channel}")]


def current(store: Store, channel: Channel) -> Change | None:
    """The channel's last change, which is its state; None before the first."""
    keys = store.keys(f"channels/{channel}")
    return _read(store, keys[-1]) if keys else None


def append(store: Store, change: Change) -> None:
    """Record the change; ``ReleaseError`` if the channel was changed meanwhile."""
    key = f"channels/{change.channel}/{change.serial:0{_DIGITS}}.json"
    if not create_or_same(store, key, change.model_dump_json(indent=2).encode() + b"\n"):
        other = _read(store, key)
        raise ReleaseError(
            f"{change.channel} was changed meanwhile: {other.who} took it to {other.after} "
            f"({other.action}, {other.at:%Y-%m-%d %H:%M:%S} UTC). Look at it, and repeat if you "
            "still want to"
        )


def _read(store: Store, key: str) -> Change:
    data = store.read(key)
    if data is None:
        raise ReleaseError(f"{key} vanished from the store, which nothing here removes: restore it")
    try:
        return Change.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise ReleaseError(f"{key} is not a record of a change ({first}): restore it") from error
