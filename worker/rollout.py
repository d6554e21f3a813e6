"""The rollout: poll the channels of a release store; download, verify, warm up and install each new version.

Engines change while events are processed. A version that must not be used is refused, logged and counted; an
unavailable store is polled again; the installed engine stays meanwhile. One version is loaded at a time, after
its predecessor is closed. So at most one engine more is open than there are slots.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from engines.bundle.manifest import BundleError
from engines.release.records import Change, Version
from engines.release.store import StoreError
from worker.engine import Engine, EngineLoader, Role, identity
from worker.metrics import Metrics
from worker.services import Services

THREAD_NAME = "rollout"


@dataclass(frozen=True, slots=True)
class Refused:
    """A change whose version was refused, and when."""

    change_id: str
    at_s: float


class Candidates:
    """Which version of a channel is worth loading for a slot. Pure; fed with changes and times.

    A version is tried once when its channel moves to it. A refused one is tried again only after a long pause, or
    once the channel moves again: until then it costs neither downloads nor processor time.

    Args:
        installed: The version in the slot; None while it is empty.
        retry_s: How long a refused version is left alone.
    """

    def __init__(self, installed: Version | None, retry_s: float) -> None:
        self.installed = installed
        self._retry_s = retry_s
        self._refused: Refused | None = None

    def wanted(self, change: Change, now_s: float) -> bool:
        """Whether to try the version that the channel moved to."""
        if change.after == self.installed:
            return False
        refused = self._refused
        if refused is None or refused.change_id != change.id:
            return True
        return now_s - refused.at_s >= self._retry_s

    def accept(self, change: Change) -> None:
        """Its version is installed."""
        self.installed, self._refused = change.after, None

    def refuse(self, change: Change, now_s: float) -> None:
        """Its version was tried, and must not be used."""
        self._refused = Refused(change.id, now_s)

    def evict(self, change: Change, now_s: float) -> None:
        """Its version was installed and broke: the slot is empty, and the version counts as refused."""
        self.installed = None
        self.refuse(change, now_s)


class ReleasePoller:
    """Keeps one slot at the version of its channel.

    Args:
        role: The slot.
        loader: Loads its versions.
        services: The shared parts of the worker.
        leaving: Whether the process ends.
    """

    def __init__(
        self, role: Role, loader: EngineLoader, services: Services, leaving: Callable[[], bool]
    ) -> None:
        self._role, self._loader, self._leaving = role, loader, leaving
        self._slots, self._metrics = services.slots, services.metrics
        self._clock = services.clocks.monotonic
        self._releases = loader.releases(role)
        self._installed = self._slots.installed(role)
        version = None if self._installed is None else _version(self._installed)
        self._candidates = Candidates(version, services.settings.engine.retry_refused_s)
        self._installed_by: Change | None = None
        self._problem: str | None = None
        self._log = structlog.get_logger().bind(role=role, channel=self._releases.channel)

    def poll(self) -> None:
        """Read the channel once, and install its version if it is new and may be used."""
        self._notice_eviction()
        try:
            change = self._releases.current()
        except BundleError as error:
            # The store is unavailable or its record damaged: either way the next poll tries again.
            self._report(str(error))
            return
        self._report(None if change else "the channel is empty: promote a version to it")
        if change is not None and self._candidates.wanted(change, self._clock()):
            self._try(change)

    def _try(self, change: Change) -> None:
        fields = {"version": str(change.after), "serial": change.serial, "action": change.action}
        self._log.info("engine_candidate", in_place=str(self._candidates.installed), **fields)
        try:
            engine = self._loader.load(self._releases.fetch(change), self._role)
        except StoreError as error:
            self._metrics.swapped(self._role, "store_away")
            self._log.warning("engine_download_failed", error=str(error), **fields)
        except BundleError as error:
            self._refuse(change, str(error), fields)
        except Exception as error:  # noqa: BLE001 (the edge: a candidate must not end the thread)
            self._log.exception("engine_candidate_failed")
            self._refuse(change, f"unexpected {type(error).__name__}: {error}", fields)
        else:
            self._install(engine, change, fields)

    def _refuse(self, change: Change, error: str, fields: dict[str, object]) -> None:
        self._candidates.refuse(change, self._clock())
        self._metrics.swapped(self._role, "refused")
        self._log.error(
            "engine_refused", error=error, stays=str(self._candidates.installed or "none"), **fields
        )

    def _install(self, engine: Engine, change: Change, fields: dict[str, object]) -> None:
        # Not what the slot holds now: an engine that broke meanwhile has left the slot, and is still open.
        before = self._installed
        self._slots.install(engine)
        self._candidates.accept(change)
        self._installed, self._installed_by = engine, change
        self._metrics.swapped(self._role, "swapped")
        announce(engine, self._metrics)
        self._log.info(
            "engine_swapped", before=None if before is None else str(_version(before)), **fields
        )
        if before is not None and self._slots.close_when_idle(before, self._leaving):
            self._log.info("engine_closed", version=str(_version(before)))
        self._releases.prune(change)

    def _notice_eviction(self) -> None:
        """A canary or shadow that broke has left its slot: it is not tried again at once."""
        broken = self._installed
        if broken is None or self._slots.installed(self._role) is broken:
            return
        self._installed = None
        self._metrics.engine.remove(self._role)
        if self._installed_by is not None:
            self._candidates.evict(self._installed_by, self._clock())
        self._slots.close_when_idle(broken, self._leaving)

    def _report(self, problem: str | None) -> None:
        """Log a problem once when it begins and once when it ends, however many polls that takes."""
        self._metrics.dependency_up.labels(f"releases-{self._role}").set(0 if problem else 1)
        if problem and self._problem is None:
            self._log.warning("channel_unavailable", error=problem)
        elif self._problem and problem is None:
            self._log.info("channel_available")
        self._problem = problem


class RolloutThread(threading.Thread):
    """Polls every channel, again and again.

    Args:
        pollers: One for each slot that follows a channel.
        pause: Called with seconds between polls; returns True to end.
        interval_s: The pause.
    """

    def __init__(
        self, pollers: Sequence[ReleasePoller], pause: Callable[[float], bool], interval_s: float
    ) -> None:
        super().__init__(name=THREAD_NAME, daemon=True)
        self._pollers, self._pause, self._interval_s = pollers, pause, interval_s

    def run(self) -> None:
        """Poll until ``pause`` says to end."""
        while not self._pause(self._interval_s):
            self.poll()

    def poll(self) -> None:
        """Poll every channel once; an error of one does not end the thread."""
        for poller in self._pollers:
            try:
                poller.poll()
            except Exception:  # noqa: BLE001 (the edge: it is logged, and the next poll tries again)
                structlog.get_logger().exception("release_poll_failed")


def announce(engine: Engine, metrics: Metrics) -> None:
    """Log which engine is installed, and set its metric."""
    fields = identity(engine)
    metrics.engine.labels(engine.role).info(fields)
    structlog.get_logger().info(
        "bundle_verified",
        role=engine.role,
        golden_max_difference=engine.bundle.golden_max_difference,
        **fields,
    )


def _version(engine: Engine) -> Version:
    return Version(
        name=engine.model.name,
        version=engine.model.version,
        manifest_sha256=engine.bundle.sha256,
    )
