"""Loading engines: from a directory to one that is verified, has its thresholds, and is warm.

In: the settings and a directory. Out: an :class:`Engine`. Errors: ``BundleError``, which says what to do.
"""

from pathlib import Path

import structlog

from engines.bundle.keys import Trust, read_trust
from engines.bundle.manifest import BundleError
from engines.bundle.verify import Bundle, load_bundle
from engines.release.store import ReleaseError, open_store
from worker.engine import Engine, Role, make_engine, warm_up
from worker.releases import Releases
from worker.settings import Settings
from worker.verdict import Mode


class EngineLoader:
    """Loads every engine of a process in the same way.

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

    def releases(self, role: Role) -> Releases:
        """The channel that a role follows."""
        engine = self._settings.engine
        if self._store is None or engine.cache_dir is None:
            raise ReleaseError("no channel is followed without engine.store and engine.cache_dir")
        channel = engine.channel if role == "deciding" else role
        return Releases(self._store, channel, engine.cache_dir, self._trust)

    def load(self, directory: Path, role: Role, *, warm: bool = True) -> Engine:
        """A verified, warm engine.

        Args:
            directory: The bundle.
            role: What it is here for.
            warm: Whether to run its batch sizes beforehand.

        Raises:
            BundleError: It must not be used; nothing of it stays open.
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
            self._shout(bundle)
        try:
            # An unknown threshold set must be found now, not by the first event.
            engine = make_engine(bundle, role, self._mode(role), settings.decide.threshold_set)
            if warm:
                warm_up(bundle, settings.batch.max_images)
        except BaseException:
            bundle.runtime.close()
            raise
        return engine

    def first(self, *, warm: bool = True) -> Engine:
        """The engine to start with.

        Where a channel is followed: what it is at, or, if the store is away or that version must not be used,
        the latest local copy that is sound; the log then says so as an error.

        Raises:
            BundleError: There is none that may be used.
        """
        directory = self._settings.engine.fixed_bundle
        if directory is not None:
            return self.load(directory, "deciding", warm=warm)
        releases = self.releases("deciding")
        try:
            change = releases.look()
            if change is None:
                raise ReleaseError(f"{releases.channel} is empty: promote a version first")
            engine = self.load(releases.fetch(change), "deciding", warm=warm)
        except BundleError as error:
            return self._from_copy(releases, error, warm=warm)
        releases.tidy(change)
        return engine

    def _from_copy(self, releases: Releases, why: BundleError, *, warm: bool) -> Engine:
        """An engine from the latest local copy that is sound; ``why``, where there is none."""
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
                advice="this may not be what the channel is at: repair the store or the channel; "
                "the worker goes on looking at it",
            )
            return engine
        raise why

    def _shout(self, bundle: Bundle) -> None:
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
    """The bundle that the settings name, or that their channel is at: for commands that run once."""
    return EngineLoader(settings).first(warm=False).bundle
