"""Promote, roll back, fetch: what moves a channel, and what follows it.

In: a store, a channel, whose signatures are trusted. Out: the ``Change`` made, or the one fetched.
Errors: ``BundleError``: ``ReleaseError`` for what the store or the gate refuses, ``SignatureError`` for
a bundle that no trusted key signed.

A channel changes by one object written once (``records``), after everything that it names is in the
store and was read back, verified and run. Whatever ends a promotion before leaves the old version.
"""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engines.bundle.keys import Trust
from engines.bundle.manifest import parse_manifest
from engines.bundle.verify import Bundle, load_bundle
from engines.release.gate import Margins, disagreements, findings, latency_findings
from engines.release.layout import materialise, publish, stored_manifest_bytes
from engines.release.measure import USUAL, Timing, measure_latency, measure_parity
from engines.release.records import Change, Channel, Measured, Version, append, current, history
from engines.release.store import ReleaseError, Store


@dataclass(frozen=True)
class Asked:
    """Who asks for a change, when and why.

    Attributes:
        who: a person or a job.
        at: now, with a time zone.
        reason: in a few words; needed for ``force``.
        force: promote in spite of the gate's findings; never in spite of a signature, a digest or
            a golden output, on whichever runtime.
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
    store: Store, channel: Channel, bundle: Path, asked: Asked, trust: Trust, margins: Margins,
    timing: Timing = USUAL,
) -> Change:  # fmt: skip
    """Put a bundle into the store and, if the gate lets it, take the channel to it."""
    before = current(store, channel)
    version = publish(store, bundle)
    if before is not None and before.after == version:
        raise ReleaseError(f"{channel} is at {version} already: nothing to do")
    with _tried(store, version, trust) as (directory, candidate):
        in_place = before.after if before else None
        latency = measure_latency(store, candidate, in_place, trust, timing)
        candidate.runtime.close()  # before every other runtime is opened: a GPU's memory is scarce
        measured = Measured(latency=latency, parity=measure_parity(directory, trust, asked.at))
    _refuse_disagreeing(version, measured)
    against: tuple[str, ...] = ()
    if in_place is not None:
        old = parse_manifest(stored_manifest_bytes(store, in_place))
        against = findings(candidate.manifest, old, margins) + latency_findings(latency, margins)
    if against and not asked.force:
        raise _worse(version, f"{channel} is at ({in_place})", against)
    change = _change(channel, "promote", before, version, asked, candidate.signed_by, against)
    change = change.model_copy(update={"measured": measured})
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
    with _tried(store, version, trust) as (_, found):
        signed_by = found.signed_by
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


@contextmanager
def _tried(store: Store, version: Version, trust: Trust) -> Iterator[tuple[Path, Bundle]]:
    """Load the version as a worker will, from what the store gives back; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="synthgate-release-") as directory:
        copy = Path(directory) / "bundle"
        materialise(store, version, copy, trust)
        bundle = load_bundle(copy, trust=trust)
        with closing(bundle.runtime):
            yield copy, bundle


def _worse(version: Version, than: str, against: tuple[str, ...]) -> ReleaseError:
    listed = "\n  ".join(against)
    return ReleaseError(
        f"{version} may be worse than what {than}:\n  {listed}\n"
        "Promote a better one, or this one with --force and a --reason"
    )


def _refuse_disagreeing(version: Version, measured: Measured) -> None:
    problems = "\n  ".join(disagreements(measured.parity))
    if problems:
        raise ReleaseError(
            f"{version} is not the same on every runtime of this machine, and --force does not pass "
            f"that:\n  {problems}\nLeave the file out of the bundle, or make it again"
        )


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
