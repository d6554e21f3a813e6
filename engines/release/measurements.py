"""What was measured of a candidate before a promotion, as it stands in the channel's record.

In: plain values. Out: the same, checked, and in one sentence. No errors of its own but pydantic's.
"""

from typing import Annotated

from pydantic import Field

from engines.fields import Part, Positive

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
