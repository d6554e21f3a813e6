"""The thread that follows the channels: it fetches, verifies and warms a new version, then gives it its seat.

In: channels, looked at now and then. Out: exchanged engines, beside the traffic. Errors: none leave here: a version
that must not be used is refused, logged and counted, a store that is away is waited for, and what was in place
stays. One version is loaded at a time, and the one that it replaced is freed before the next, so that there is never
more than one engine beyond the slots.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from engines.bundle.manifest import BundleError
from engines.release.records import Change, Version
from engines.release.store import StoreError
from worker.engine import Engine, EngineLoader, EngineSlots, Role, identity
from worker.metrics import Metrics
from worker.release_cache import ReleaseCache
from worker.types import Clock


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


THREAD_NAME = "engine-watch"


class ReleasePoller:
    """Keeps one seat at what its channel is at.

    Args:
        role: Whose seat.
        loader: Loads its versions.
        slots: All slots.
        metrics: Swaps and the engine in place.
        clock: Monotonic seconds.
        retry_refused_s: How long a refused version is left alone.
        leaving: Whether the process ends.
    """

    def __init__(
        self,
        role: Role,
        loader: EngineLoader,
        slots: EngineSlots,
        metrics: Metrics,
        clock: Clock,
        retry_refused_s: float,
        leaving: Callable[[], bool],
    ) -> None:
        self._role, self._loader, self._slots = role, loader, slots
        self._metrics, self._clock, self._leaving = metrics, clock, leaving
        self._releases: ReleaseCache = loader.releases(role)
        self._installed = slots.installed(role)
        in_place = None if self._installed is None else _version(self._installed)
        self._candidates = Candidates(in_place, retry_refused_s)
        self._installed_by: Change | None = None
        self._problem: str | None = None
        self._log = structlog.get_logger().bind(role=role, channel=self._releases.channel)

    def poll(self) -> None:
        """Look once, and exchange the engine if the channel has moved to one that may be used."""
        self._notice_breakdown()
        try:
            change = self._releases.current()
        except BundleError as error:
            # Away, or its record is damaged: neither is worth more than another look.
            self._tell_problem(str(error))
            return
        self._tell_problem(None if change else "the channel is empty: promote a version to it")
        if change is not None and self._candidates.wanted(change, self._clock()):
            self._try(change)

    def _try(self, change: Change) -> None:
        told = {"version": str(change.after), "serial": change.serial, "action": change.action}
        self._log.info("engine_candidate", in_place=str(self._candidates.in_place), **told)
        try:
            engine = self._loader.load(self._releases.fetch(change), self._role)
        except StoreError as error:
            self._metrics.swapped(self._role, "store_away")
            self._log.warning("engine_fetch_broken_off", error=str(error), **told)
        except BundleError as error:
            self._refuse(change, str(error), told)
        except Exception as error:  # noqa: BLE001 (the edge: a candidate must not end the watch)
            self._log.exception("engine_candidate_failed")
            self._refuse(change, f"unforeseen {type(error).__name__}: {error}", told)
        else:
            self._install(engine, change, told)

    def _refuse(self, change: Change, error: str, told: dict[str, object]) -> None:
        self._candidates.refuse(change, self._clock())
        self._metrics.swapped(self._role, "refused")
        self._log.error(
            "engine_refused", error=error, stays=str(self._candidates.in_place or "none"), **told
        )

    def _install(self, engine: Engine, change: Change, told: dict[str, object]) -> None:
        # Not what the seat held just now: an engine that broke meanwhile has left it, and is still open.
        before = self._installed
        self._slots.install(engine)
        self._candidates.take(change)
        self._installed, self._installed_by = engine, change
        self._metrics.swapped(self._role, "swapped")
        announce(engine, self._metrics)
        self._log.info(
            "engine_swapped", before=None if before is None else str(_version(before)), **told
        )
        if before is not None and self._slots.close_when_idle(before, self._leaving):
            self._log.info("engine_closed", version=str(_version(before)))
        self._releases.prune(change)

    def _notice_breakdown(self) -> None:
        """A canary or shadow that broke has lost its seat: it is not tried again at once."""
        broken = self._installed
        if broken is None or self._slots.installed(self._role) is broken:
            return
        self._installed = None
        self._metrics.engine.remove(self._role)
        if self._installed_by is not None:
            self._candidates.lost(self._installed_by, self._clock())
        self._slots.close_when_idle(broken, self._leaving)

    def _tell_problem(self, problem: str | None) -> None:
        """Once when it begins and once when it ends, however often it is looked."""
        self._metrics.dependency_up.labels(f"releases-{self._role}").set(0 if problem else 1)
        if problem and self._problem is None:
            self._log.warning("channel_away", error=problem)
        elif self._problem and problem is None:
            self._log.info("channel_back")
        self._problem = problem


class RolloutThread(threading.Thread):
    """Lets every follower look, again and again.

    Args:
        followers: One for each seat that follows a channel.
        wait: Called with seconds between looks; returns True to end.
        interval_s: The pause.
    """

    def __init__(
        self, followers: Sequence[ReleasePoller], wait: Callable[[float], bool], interval_s: float
    ) -> None:
        super().__init__(name=THREAD_NAME, daemon=True)
        self._followers, self._wait, self._interval_s = followers, wait, interval_s

    def run(self) -> None:
        """Look until told to end."""
        while not self._wait(self._interval_s):
            self.poll()

    def poll(self) -> None:
        """One look at every channel; no error of one ends the thread."""
        for follower in self._followers:
            try:
                follower.poll()
            except Exception:  # noqa: BLE001 (the edge: it is logged, and the next look is another chance)
                structlog.get_logger().exception("engine_watch_failed")


def announce(engine: Engine, metrics: Metrics) -> None:
    """Say by log and metric which engine has its seat."""
    told = identity(engine)
    metrics.engine.labels(engine.role).info(told)
    structlog.get_logger().info(
        "bundle_verified",
        role=engine.role,
        golden_max_difference=engine.bundle.golden_max_difference,
        **told,
    )


def _version(engine: Engine) -> Version:
    return Version(
        name=engine.model.name,
        version=engine.model.version,
        manifest_sha256=engine.bundle.sha256,
    )
