"""Seats: which engine decides, which is the canary, which is the shadow; and who still uses an old one.

In: engines, and events that ask for one. Out: leases. An engine that has lost its seat stays open until the last
image that was cropped for it has been scored. Errors: none.

Every event asks here, in many threads; one thread, :mod:`worker.follow`, changes seats. Hence the lock.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable

from worker.engine import Engine, Role

# A double holds this many bits exactly: a share of 1 takes every event, a share of 0 none.
_SHARE_BITS = 53
_SHARE_STEPS = 1 << _SHARE_BITS
_IDLE_CHECK_S = 0.5


def place_of(content_id: str) -> float:
    """Where a content lies in [0, 1): evenly spread, the same in every worker and after every start."""
    digest = hashlib.sha256(b"synthgate canary\0" + content_id.encode()).digest()
    return (int.from_bytes(digest[:8]) >> (64 - _SHARE_BITS)) / _SHARE_STEPS


def is_canarys(content_id: str, share: float) -> bool:
    """Whether the canary decides about this content: as the share grows, none is taken from it again."""
    return place_of(content_id) < share


class Seats:
    """The engines in place.

    Args:
        deciding: The engine that decides from the start.
        canary_share: The share of contents that the canary decides about, while there is one.
    """

    def __init__(self, deciding: Engine, canary_share: float = 0.0) -> None:
        self._share = canary_share
        self._seated: dict[Role, Engine] = {deciding.role: deciding}
        self._leases: Counter[Engine] = Counter()
        self._changed = threading.Condition()

    def lease(self, content_id: str) -> Engine:
        """The engine that decides about this content; give it back with :meth:`release`."""
        with self._changed:
            canary = self._seated.get("canary")
            chosen = canary if canary and is_canarys(content_id, self._share) else None
            engine = chosen or self._seated["deciding"]
            self._leases[engine] += 1
            return engine

    def lease_shadow(self) -> Engine | None:
        """The engine that scores beside the deciding one, to be given back; None where there is none."""
        with self._changed:
            engine = self._seated.get("shadow")
            if engine is not None:
                self._leases[engine] += 1
            return engine

    def release(self, engine: Engine) -> None:
        """Give back one lease."""
        with self._changed:
            self._leases[engine] -= 1
            if not self._leases[engine]:
                del self._leases[engine]
                self._changed.notify_all()

    def seated(self, role: Role) -> Engine | None:
        """The engine in that seat."""
        with self._changed:
            return self._seated.get(role)

    def seat(self, engine: Engine) -> Engine | None:
        """Give an engine its seat; returns the one that had it."""
        with self._changed:
            before = self._seated.get(engine.role)
            self._seated[engine.role] = engine
            return before

    def unseat(self, engine: Engine) -> bool:
        """Take its seat from an engine that broke; False if it has none any more.

        Never the deciding one: without it nothing could be decided.
        """
        with self._changed:
            if engine.role == "deciding" or self._seated.get(engine.role) is not engine:
                return False
            del self._seated[engine.role]
            return True

    def close_when_idle(self, engine: Engine, give_up: Callable[[], bool]) -> bool:
        """Wait until nothing that was cropped for an engine waits any more, then free it.

        Args:
            engine: One that has lost its seat.
            give_up: Asked now and then; True ends the wait and leaves the engine open.

        Returns:
            Whether it was freed.
        """
        with self._changed:
            while self._leases[engine]:
                if give_up():
                    return False
                self._changed.wait(_IDLE_CHECK_S)
        engine.bundle.runtime.close()
        return True

    def close(self) -> None:
        """Free all, at the end of the process."""
        with self._changed:
            engines = {*self._seated.values(), *self._leases}
        for engine in engines:
            engine.bundle.runtime.close()
