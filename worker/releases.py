"""Releases as a worker has them: a channel of a store, and the versions that were fetched from it.

In: a store and a directory. Out: changes of the channel, and directories that hold what they name, verified.
Errors: ``StoreError`` where the store does not answer, another ``BundleError`` for what must not be used.

``DIRECTORY/CHANNEL/00000012-NAME-VERSION`` is what the channel was at with its twelfth change. The highest number is
thus where the channel was when the store last answered, also after a rollback.
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

# The version in place and two to fall back on, should it be damaged on this disk.
KEPT = 3
# A fetch that was killed leaves a directory beginning with a dot; no fetch takes this long.
ABANDONED_S = 24 * 3600.0
_SERIAL_DIGITS = 8


class Releases:
    """One channel of a store, with local copies.

    Args:
        store: The releases.
        channel: Which of its channels.
        cache_dir: Where copies lie; workers of one machine may share it.
        trust: Whose signatures count.
    """

    def __init__(self, store: Store, channel: Channel, cache_dir: Path, trust: Trust) -> None:
        self.channel: Channel = channel
        self._store, self._trust = store, trust
        self._directory = cache_dir / channel

    def look(self) -> Change | None:
        """What the channel is at; None if nothing was ever promoted to it."""
        return current(self._store, self.channel)

    def fetch(self, change: Change) -> Path:
        """The directory with what a change took the channel to: files whole, signature checked."""
        version = change.after
        name = f"{change.serial:0{_SERIAL_DIGITS}}-{version.name}-{version.version}"
        to = self._directory / name
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReleaseError(
                f"{self._directory} cannot be made ({error.strerror}): correct engine.cache_dir"
            ) from error
        try:
            materialise(self._store, version, to, self._trust)
        except BundleError:
            if not to.is_dir():
                raise
            # Another worker of this machine was quicker, or this copy is damaged or of a store that is no more.
            return self._checked_or_anew(change, to)
        return to

    def _checked_or_anew(self, change: Change, to: Path) -> Path:
        with contextlib.suppress(BundleError):
            materialise(self._store, change.after, to, self._trust)
            return to
        shutil.rmtree(to, ignore_errors=True)
        materialise(self._store, change.after, to, self._trust)
        return to

    def copies(self) -> list[Path]:
        """Local copies, that of the latest change first; each has still to be verified."""
        if not self._directory.is_dir():
            return []
        found = [path for path in self._directory.iterdir() if _serial(path) is not None]
        return sorted(found, key=lambda path: path.name, reverse=True)

    def tidy(self, change: Change) -> None:
        """Remove copies that would not be used again, and what killed fetches left.

        A number above the channel's is of another store: at the next start it would be taken for the latest.
        """
        below = 0
        for path in self.copies():
            serial = _serial(path) or 0
            below += serial <= change.serial
            if serial > change.serial or below > KEPT:
                shutil.rmtree(path, ignore_errors=True)
        for path in self._directory.glob(".*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(path, ignore_errors=True)


def _serial(path: Path) -> int | None:
    """The number of the change that a copy is of; None for what is no copy."""
    head, _, rest = path.name.partition("-")
    return int(head) if rest and head.isdecimal() and len(head) == _SERIAL_DIGITS else None
