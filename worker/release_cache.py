"""Local copies of the releases of one channel, downloaded from a release store and verified.

``CACHE_DIR/CHANNEL/00000012-NAME-VERSION`` holds the version that the channel's twelfth change selected. The highest
number is therefore the channel's state when the store last answered, also after a rollback.
Raises ``StoreError`` where the store does not answer, and another ``BundleError`` where a version must not be used.
"""

import contextlib
import shutil
import time
from pathlib import Path

from engines.bundle.keys import Trust
from engines.bundle.manifest import BundleError
from engines.release.layout import materialise
from engines.release.records import Change, Channel, current
from engines.release.store import ReleaseError, Store

# The current version and two to fall back on, should its files be damaged on this disk.
KEPT = 3
# A killed download leaves a directory that begins with a dot; no download takes this long.
ABANDONED_S = 24 * 3600.0
_SERIAL_DIGITS = 8


class ReleaseCache:
    """One channel of a store, with local copies.

    Args:
        store: The release store.
        channel: The channel to read.
        cache_dir: Directory of the copies; several workers on one machine may share it.
        trust: The keys whose signatures are accepted.
    """

    def __init__(self, store: Store, channel: Channel, cache_dir: Path, trust: Trust) -> None:
        self.channel: Channel = channel
        self._store, self._trust = store, trust
        self._directory = cache_dir / channel

    def current(self) -> Change | None:
        """The channel's latest change; None if no version was ever promoted to it."""
        return current(self._store, self.channel)

    def fetch(self, change: Change) -> Path:
        """Download the version that a change selected, unless a copy is there.

        Returns:
            Its directory, with complete files and a checked signature.

        Raises:
            ReleaseError: The cache directory cannot be written.
            BundleError: The version must not be used, or the store does not answer.
        """
        version = change.after
        name = f"{change.serial:0{_SERIAL_DIGITS}}-{version.name}-{version.version}"
        directory = self._directory / name
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReleaseError(
                f"{self._directory} cannot be created ({error.strerror}): correct engine.cache_dir"
            ) from error
        try:
            materialise(self._store, version, directory, self._trust)
        except BundleError:
            if not directory.is_dir():
                raise
            # Another worker wrote it at the same time, or this copy is damaged or from a former store.
            return self._recheck_or_replace(change, directory)
        return directory

    def _recheck_or_replace(self, change: Change, directory: Path) -> Path:
        with contextlib.suppress(BundleError):
            materialise(self._store, change.after, directory, self._trust)
            return directory
        shutil.rmtree(directory, ignore_errors=True)
        materialise(self._store, change.after, directory, self._trust)
        return directory

    def copies(self) -> list[Path]:
        """Local copies, the latest change first; the caller must verify each before use."""
        if not self._directory.is_dir():
            return []
        paths = [path for path in self._directory.iterdir() if _serial(path) is not None]
        return sorted(paths, key=lambda path: path.name, reverse=True)

    def prune(self, change: Change) -> None:
        """Remove copies that are not needed any more, and what killed downloads left.

        A serial number above the channel's comes from another store: at the next start it would be taken for
        the latest.
        """
        kept = 0
        for path in self.copies():
            serial = _serial(path) or 0
            kept += serial <= change.serial
            if serial > change.serial or kept > KEPT:
                shutil.rmtree(path, ignore_errors=True)
        for path in self._directory.glob(".*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(path, ignore_errors=True)


def _serial(path: Path) -> int | None:
    """The serial number of a copy's change; None for any other file."""
    head, _, rest = path.name.partition("-")
    return int(head) if rest and head.isdecimal() and len(head) == _SERIAL_DIGITS else None
