"""The shared parts of a worker for unit tests: no broker, no server, and a clock that the test sets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from worker.cache import VerdictCache, connect
from worker.engine import EngineSlots
from worker.health import Liveness, Readiness
from worker.metrics import Metrics
from worker.services import Clocks, Health, Services
from worker.settings import RedisSettings, Settings
from worker.types import AckToken, Links, Payload, Received, ShadowSink

NO_REDIS = RedisSettings(url="redis://127.0.0.1:1/0")
# For what never looks at an engine.
NO_SLOTS = cast("EngineSlots", None)


def never(_seconds: float) -> bool:
    """A pause that neither waits nor gives up."""
    return False


def make_services(
    slots: EngineSlots = NO_SLOTS,
    *,
    settings: Settings | None = None,
    cache: VerdictCache | None = None,
    clock: Callable[[], float] = lambda: 101.0,
    wall: Callable[[], float] = lambda: 1_770_000_005.0,
    pause: Callable[[float], bool] = never,
) -> Services:
    """Services with a cache that only remembers scores of this process, unless one is given."""
    return Services(
        settings or Settings(),
        Metrics(),
        Clocks(clock, wall, pause),
        cache or VerdictCache(connect(NO_REDIS), NO_REDIS),
        slots,
        Health(Liveness(60.0, 0.0), Readiness("group")),
    )


@dataclass
class Collected:
    """What a stage handed on."""

    next: list[Payload] = field(default_factory=list)
    requeued: list[Payload] = field(default_factory=list)
    acknowledged: list[AckToken] = field(default_factory=list)

    def links(self, shadow: ShadowSink | None = None) -> Links:
        """Links that collect."""
        return Links(self.next.append, self.requeued.append, self._acknowledge, shadow)

    def requeued_offsets(self) -> list[int]:
        """The offsets of what was requeued, all of it received records again."""
        assert all(isinstance(payload, Received) for payload in self.requeued)
        return sorted(payload.event.token.offset for payload in self.requeued)

    def _acknowledge(self, token: AckToken) -> bool:
        self.acknowledged.append(token)
        return True
