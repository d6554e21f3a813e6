"""Promote, roll back, fetch: what moves a channel, and what follows it.

In: a store, a channel, whose signatures are trusted. Out: the ``Change`` made, or the one fetched.
Errors: ``BundleError``: ``ReleaseError`` for what the store or the gate refuses, ``SignatureError`` for
a bundle that no trusted key signed.

A channel changes by one object written once (``records``), after everything that it names is in the
store and was read back, verified and run. Whatever ends a promotion before leaves the old version.
"""

import tempfile
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engines.keys import Trust
from engines.manifest import Manifest, parse_manifest
from engines.release.gate import Margins, findings
from engines.release.layout import materialise, publish, stored_manifest_bytes
from engines.release.records import Change, Channel, Version, append, current, history
from engines.release.store import ReleaseError, Store
from engines.verify import load_bundle


@dataclass(frozen=True)
class Asked:
    """Who asks for a change, when and why.

    Attributes:
        who: a person or a job.
        at: now, with a time zone.
        reason: in a few words; needed for ``force``.
        force: promote in spite of the gate's findings; never in spite of a signature, a digest or
            a golden output.
    """

    who: str
    at: datetime
    reason: str = ""
    force: bool = False

    def __post_init__(self) -> None:
        """Refuses a forced change that says not why."""
        if self.force and not self.reason.strip():
            raise ReleaseError("force needs a reason: it stands in the history, for who asks later")


def promote(
    store: Store, channel: Channel, bundle: Path, asked: Asked, trust: Trust, margins: Margins
) -> Change:
    """Put a bundle into the store and, if the gate lets it, take the channel to it."""
    before = current(store, channel)
    version = publish(store, bundle)
    if before is not None and before.after == version:
        raise ReleaseError(f"{channel} is at {version} already: nothing to do")
    manifest, signed_by = _tried(store, version, trust)
    against: tuple[str, ...] = ()
    if before is not None:
        in_place = parse_manifest(stored_manifest_bytes(store, before.after))
        against = findings(manifest, in_place, margins)
    if against and not asked.force:
        listed = "\n  ".join(against)
        raise ReleaseError(
            f"{version} may be worse than what {channel} is at ({before.after if before else '-'}):"
            f"\n  {listed}\nPromote a better one, or this one with --force and a --reason"
        )
    change = _change(channel, "promote", before, version, asked, signed_by, against)
    append(store, change)
    return change


def rollback(
    store: Store, channel: Channel, asked: Asked, trust: Trust, to: str | None = None
) -> Change:
    """Take the channel back: to the version before the one in place, or to that version.

    The figures are not asked again; signature, digests and golden outputs are.
    """
    changes = history(store, channel)
    if not changes:
        raise ReleaseError(f"{channel} is empty: there is nothing to go back from")
    version = _earlier(changes) if to is None else _named(changes, to)
    if version is None:
        raise ReleaseError(
            f"no version was in {channel} before {changes[-1].after}: name one by --to"
        )
    if version == changes[-1].after:
        raise ReleaseError(f"{channel} is at {version} already: nothing to do")
    _, signed_by = _tried(store, version, trust)
    change = _change(channel, "rollback", changes[-1], version, asked, signed_by, ())
    append(store, change)
    return change


def fetch(store: Store, channel: Channel, to: Path, trust: Trust) -> Change:
    """Write what the channel is at into a directory: whole and verified, or not at all."""
    found = current(store, channel)
    if found is None:
        raise ReleaseError(f"{channel} is empty: promote a version first")
    materialise(store, found.after, to, trust)
    return found


def _tried(store: Store, version: Version, trust: Trust) -> tuple[Manifest, str | None]:
    """Load the version as a worker will, from what the store gives back."""
    with tempfile.TemporaryDirectory(prefix="synthgate-release-") as directory:
        copy = Path(directory) / "bundle"
        materialise(store, version, copy, trust)
        bundle = load_bundle(copy, trust=trust)
        bundle.runtime.close()
    return bundle.manifest, bundle.signed_by


def _change(
    channel: Channel,
    action: str,
    before: Change | None,
    after: Version,
    asked: Asked,
    signed_by: str | None,
    against: tuple[str, ...],
) -> Change:
    return Change.model_validate(
        {
            "id": uuid.uuid4().hex,
            "serial": before.serial + 1 if before else 1,
            "channel": channel,
            "action": action,
            "at": asked.at,
            "who": asked.who,
            "before": before.after if before else None,
            "after": after,
            "reason": asked.reason,
            "forced": bool(against),
            "findings": against,
            "signed_by": signed_by,
        }
    )


def _earlier(changes: list[Change]) -> Version | None:
    """What was there before the version in place was last promoted: each step leads further back."""
    version = changes[-1].after
    for change in reversed(changes):
        if change.action == "promote" and change.after == version:
            return change.before
    return None


def _named(changes: list[Change], to: str) -> Version:
    found = {change.after for change in changes if to in (change.after.version, str(change.after))}
    if len(found) != 1:
        known = ", ".join(sorted({str(change.after) for change in changes}))
        state = "more than one version" if found else "no version that was ever in this channel"
        raise ReleaseError(f"{to!r} names {state}; there were {known}")
    return found.pop()
