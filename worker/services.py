"""What every part of a worker shares, made once where the process starts (:mod:`worker.app`)."""

from collections.abc import Callable
from dataclasses import dataclass

from worker.cache import VerdictCache
from worker.engine import EngineSlots
from worker.health import Liveness, Readiness
from worker.metrics import Metrics
from worker.settings import Settings
from worker.types import Clock


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time, injected so that tests need not wait.

    Attributes:
        monotonic: Seconds, for durations.
        wall: Seconds since the epoch.
        pause: Waits for some seconds between attempts; returns True when the worker gives up unfinished work.
    """

    monotonic: Clock
    wall: Clock
    pause: Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes report: whether the worker is stuck, and whether it is ready."""

    liveness: Liveness
    readiness: Readiness


@dataclass(frozen=True, slots=True)
class Services:
    """Settings and shared parts.

    Attributes:
        settings: All settings of the worker.
        metrics: All its metrics.
        clocks: Time.
        cache: Scores, marks of what was published, verdicts.
        slots: The engines in use.
        health: Liveness and readiness.
    """

    settings: Settings
    metrics: Metrics
    clocks: Clocks
    cache: VerdictCache
    slots: EngineSlots
    health: Health
