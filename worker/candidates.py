"""Which version is worth a try: pure, fed with changes and times.

A version is tried once when its channel moves to it. One that was refused is tried again only after a long pause, or
once the channel moves again: a bad one must cost neither the store nor the processor anything while it stays.
"""

from dataclasses import dataclass

from engines.release.records import Change, Version


@dataclass(frozen=True, slots=True)
class Refused:
    """A change whose version was refused, and when."""

    change_id: str
    at_s: float


class Candidates:
    """The state of one seat.

    Args:
        in_place: The version in the seat; None while it is empty.
        retry_s: How long a refused version is left alone.
    """

    def __init__(self, in_place: Version | None, retry_s: float) -> None:
        self.in_place = in_place
        self._retry_s = retry_s
        self._refused: Refused | None = None

    def wanted(self, change: Change, now_s: float) -> bool:
        """Whether to try what the channel is at now."""
        if change.after == self.in_place:
            return False
        refused = self._refused
        if refused is None or refused.change_id != change.id:
            return True
        return now_s - refused.at_s >= self._retry_s

    def take(self, change: Change) -> None:
        """It has the seat."""
        self.in_place, self._refused = change.after, None

    def refuse(self, change: Change, now_s: float) -> None:
        """It was tried, and must not be used."""
        self._refused = Refused(change.id, now_s)

    def lost(self, change: Change, now_s: float) -> None:
        """It had the seat and broke: the seat is empty, and it is as good as refused."""
        self.in_place = None
        self.refuse(change, now_s)
