"""Engines: a verified bundle in its role, the slots that hold one for each role, and how they are loaded.

An :class:`Engine` travels with every image that it is to score, so a swap never mixes two. Errors are
``BundleError``, and say what to do.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import structlog

from engines.bundle.keys import Trust, read_trust
from engines.bundle.manifest import BundleError, PreprocessSpec, ThresholdSet
from engines.bundle.verify import Bundle, load_bundle
from engines.release.store import ReleaseError, open_store
from engines.runtime.protocol import Runtime, RuntimeFailure
from worker.event import sortable_time
from worker.release_cache import ReleaseCache
from worker.settings import Settings
from worker.verdict import Mode, Model

Role = Literal["deciding", "canary", "shadow"]


@dataclass(frozen=True, eq=False, slots=True)
class Engine:
    """One loaded bundle in one role; another load of the same bundle is another engine.

    Attributes:
        bundle: The verified bundle, its runtime open.
        role: The slot that it is for.
        mode: The mode of its verdicts.
        id: Distinguishes its scores from those of other engines.
        thresholds: The set that turns its scores into bands.
        model: The model as its verdicts describe it.
    """

    bundle: Bundle
    role: Role
    mode: Mode
    id: str
    thresholds: ThresholdSet
    model: Model

    @property
    def spec(self) -> PreprocessSpec:
        """How its crops are made."""
        return self.bundle.manifest.preprocess


def make_engine(bundle: Bundle, role: Role, mode: Mode, threshold_set: str | None) -> Engine:
    """The engine of a bundle.

    Raises:
        BundleError: The bundle has no such threshold set.
    """
    manifest, runtime = bundle.manifest, bundle.runtime
    model = Model(
        name=manifest.name,
        version=manifest.version,
        engine_sha256=runtime.engine_sha256,
        bundle_sha256=bundle.sha256,
        precision=runtime.precision,
        runtime=runtime.name,
        preprocess_version=manifest.preprocess.version,
        built_at=sortable_time(manifest.created_at),
    )
    thresholds = manifest.threshold_set(threshold_set)
    return Engine(bundle, role, mode, engine_id(bundle), thresholds, model)


def engine_id(bundle: Bundle) -> str:
    """Distinguishes the scores of engines: the whole bundle and the runtime."""
    return f"{bundle.sha256[:32]}-{bundle.runtime.name}-{bundle.runtime.precision}"


def identity(engine: Engine) -> dict[str, str]:
    """An engine as log and metric describe it."""
    model = engine.model
    return {
        "name": model.name,
        "version": model.version,
        "runtime": model.runtime,
        "precision": model.precision,
        "engine_sha256": model.engine_sha256,
        "bundle_sha256": model.bundle_sha256,
        "signed_by": engine.bundle.signed_by or "unsigned",
    }


def warm_sizes(largest: int) -> tuple[int, ...]:
    """Batch sizes to warm up with: 1, 2, 4, ... and the largest, which a busy worker runs."""
    sizes = {largest}
    size = 1
    while size < largest:
        sizes.add(size)
        size *= 2
    return tuple(sorted(sizes))


def warm_up(bundle: Bundle, batch_images: int) -> None:
    """Run each batch size once, so that the first event does not wait for what is made at first use.

    Args:
        bundle: Its runtime is open.
        batch_images: The most images in a batch.

    Raises:
        BundleError: The engine cannot run them.
    """
    runtime, spec = bundle.runtime, bundle.manifest.preprocess
    for size in warm_sizes(min(runtime.batch_max, batch_images * spec.max_crops)):
        try:
            _run_grey(runtime, size, spec.crop_px)
        except (RuntimeFailure, MemoryError) as error:
            raise BundleError(
                f"{bundle.directory} fails on a batch of {size} grey crops while it is warmed up "
                f"({error}): promote a version that works here"
            ) from error


def _run_grey(runtime: Runtime, size: int, crop_px: int) -> None:
    runtime.infer(np.full((size, crop_px, crop_px, 3), 128, dtype=np.uint8))


# A double holds this many bits exactly: a share of 1 takes every event, a share of 0 none.
_SHARE_BITS = 53
_SHARE_STEPS = 1 << _SHARE_BITS
_IDLE_CHECK_S = 0.5


def canary_position(content_id: str) -> float:
    """The position of a content in [0, 1): evenly spread, the same in every worker and after every start."""
    digest = hashlib.sha256(b"synthgate canary\0" + content_id.encode()).digest()
    return (int.from_bytes(digest[:8]) >> (64 - _SHARE_BITS)) / _SHARE_STEPS


def is_canary_content(content_id: str, share: float) -> bool:
    """Whether the canary decides about this content: as the share grows, the canary keeps every content it had."""
    return canary_position(content_id) < share


class EngineSlots:
    """The installed engine of each role: deciding, canary, shadow.

    An engine that lost its slot stays open until the last image that was cropped for it has been scored. Every event
    acquires an engine, in many threads; one thread, :mod:`worker.rollout`, changes the slots. Hence the lock.

    Args:
        deciding: The engine that decides from the start.
        canary_share: The share of contents that the canary decides about, while there is one.
    """

    def __init__(self, deciding: Engine, canary_share: float = 0.0) -> None:
        self._share = canary_share
        self._installed: dict[Role, Engine] = {deciding.role: deciding}
        self._in_use: Counter[Engine] = Counter()
        self._changed = threading.Condition()

    def acquire(self, content_id: str) -> Engine:
        """The engine that decides about this content; call :meth:`release` once it has scored."""
        with self._changed:
            canary = self._installed.get("canary")
            chosen = canary if canary and is_canary_content(content_id, self._share) else None
            engine = chosen or self._installed["deciding"]
            self._in_use[engine] += 1
            return engine

    def acquire_shadow(self) -> Engine | None:
        """The shadow's engine, to be released later; None without a shadow."""
        with self._changed:
            engine = self._installed.get("shadow")
            if engine is not None:
                self._in_use[engine] += 1
            return engine

    def release(self, engine: Engine) -> None:
        """Release an engine that was acquired for an image."""
        with self._changed:
            self._in_use[engine] -= 1
            if not self._in_use[engine]:
                del self._in_use[engine]
                self._changed.notify_all()

    def installed(self, role: Role) -> Engine | None:
        """The engine in that slot; None while it is empty."""
        with self._changed:
            return self._installed.get(role)

    def install(self, engine: Engine) -> Engine | None:
        """Put an engine into the slot of its role; returns the one that it replaces."""
        with self._changed:
            before = self._installed.get(engine.role)
            self._installed[engine.role] = engine
            return before

    def evict(self, engine: Engine) -> bool:
        """Remove a broken engine from its slot; False if it is not installed any more.

        The deciding engine is never removed: without it nothing could be decided.
        """
        with self._changed:
            if engine.role == "deciding" or self._installed.get(engine.role) is not engine:
                return False
            del self._installed[engine.role]
            return True

    def close_when_idle(self, engine: Engine, give_up: Callable[[], bool]) -> bool:
        """Wait until every image that was cropped for an engine is scored, then close the engine.

        Args:
            engine: An engine that has lost its slot.
            give_up: Called now and then; True ends the wait and leaves the engine open.

        Returns:
            Whether the engine was closed.
        """
        with self._changed:
            while self._in_use[engine]:
                if give_up():
                    return False
                self._changed.wait(_IDLE_CHECK_S)
        engine.bundle.runtime.close()
        return True

    def close(self) -> None:
        """Close all engines, at the end of the process."""
        with self._changed:
            engines = {*self._installed.values(), *self._in_use}
        for engine in engines:
            engine.bundle.runtime.close()


class EngineLoader:
    """Loads engines: from a directory to one that is verified, has its thresholds, and is warm.

    Args:
        settings: Runtime, threads, trusted keys, threshold set, store.

    Raises:
        BundleError: A key cannot be read, or the store cannot be opened.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        engine = settings.engine
        self._trust: Trust = read_trust(engine.trusted_keys, allow_unsigned=engine.allow_unsigned)
        self._store = None if engine.store is None else open_store(engine.store)
        self._log = structlog.get_logger()

    def releases(self, role: Role) -> ReleaseCache:
        """The local copies of the channel that a role follows."""
        engine = self._settings.engine
        if self._store is None or engine.cache_dir is None:
            raise ReleaseError("to follow a channel, set engine.store and engine.cache_dir")
        channel = engine.channel if role == "deciding" else role
        return ReleaseCache(self._store, channel, engine.cache_dir, self._trust)

    def load(self, directory: Path, role: Role, *, warm: bool = True) -> Engine:
        """A verified, warm engine.

        Args:
            directory: The bundle.
            role: The slot that it is for.
            warm: Whether to run its batch sizes beforehand.

        Raises:
            BundleError: It must not be used; nothing stays open.
        """
        settings = self._settings
        bundle = load_bundle(
            directory,
            runtime=settings.engine.runtime,
            threads=settings.engine.threads,
            trust=self._trust,
            device=settings.engine.device,
        )
        if settings.engine.allow_unsigned:
            self._warn_unsigned(bundle)
        try:
            # An unknown threshold set must fail now, not at the first event.
            engine = make_engine(bundle, role, self._mode(role), settings.decide.threshold_set)
            if warm:
                warm_up(bundle, settings.batch.max_images)
        except BaseException:
            bundle.runtime.close()
            raise
        return engine

    def first(self, *, warm: bool = True) -> Engine:
        """The engine to start with.

        With a channel: its version. If the store is unavailable or that version must not be used: the latest valid
        local copy; the log then reports an error.

        Raises:
            BundleError: No engine may be used.
        """
        directory = self._settings.engine.fixed_bundle
        if directory is not None:
            return self.load(directory, "deciding", warm=warm)
        releases = self.releases("deciding")
        try:
            change = releases.current()
            if change is None:
                raise ReleaseError(f"{releases.channel} is empty: promote a version first")
            engine = self.load(releases.fetch(change), "deciding", warm=warm)
        except BundleError as error:
            return self._from_copy(releases, error, warm=warm)
        releases.prune(change)
        return engine

    def _from_copy(self, releases: ReleaseCache, why: BundleError, *, warm: bool) -> Engine:
        """An engine from the latest valid local copy; raises ``why`` if there is none."""
        for copy in releases.copies():
            try:
                engine = self.load(copy, "deciding", warm=warm)
            except BundleError as error:
                self._log.warning("copy_refused", directory=str(copy), error=str(error))
                continue
            self._log.error(
                "STARTED_FROM_A_LOCAL_COPY",
                directory=str(copy),
                channel=releases.channel,
                version=engine.model.version,
                error=str(why),
                advice="this may not be the channel's version: repair the store or the channel; "
                "the worker keeps polling it",
            )
            return engine
        raise why

    def _warn_unsigned(self, bundle: Bundle) -> None:
        self._log.warning(
            "UNSIGNED_BUNDLES_ALLOWED",
            bundle=str(bundle.directory),
            signed_by=bundle.signed_by,
            advice="whoever can write the bundle can run code here; set engine.trusted_keys, "
            "and leave engine.allow_unsigned to development",
        )

    def _mode(self, role: Role) -> Mode:
        return self._settings.decide.mode if role == "deciding" else role


def load_bundle_in_force(settings: Settings) -> Bundle:
    """The bundle that the settings name, or their channel's version; for commands that run once."""
    return EngineLoader(settings).first(warm=False).bundle
