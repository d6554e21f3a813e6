"""Promote, roll back and fetch: what moves a channel, and what follows it.

In: a store, a channel, the trusted keys. Out: the ``Change`` made, or the one fetched. Errors:
``BundleError``: ``ReleaseError`` if the store or the gate refuses, ``SignatureError`` for a bundle
that no trusted key signed.

A channel moves by writing one object once (``records``). By then everything that the object names is
in the store and was read back, verified and run. A promotion that ends earlier leaves the old version.
"""

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engines.bundle.keys import Trust
from engines.bundle.manifest import parse_manifest
from engines.bundle.verify import Bundle, load_bundle
from engines.release.gate import Margins, disagreements, findings, latency_findings
from engines.release.layout import (
    fetch_weights,
    materialise,
    publish,
    publish_weights,
    stored_manifest_bytes,
)
from engines.release.measure import USUAL, Timing, measure_latency, measure_parity
from engines.release.records import (
    Change,
    Channel,
    Measurements,
    Version,
    append,
    current,
    history,
)
from engines.release.store import ReleaseError, Store


@dataclass(frozen=True)
class PromotionRequest:
    """Who changes a channel, when and why.

    Attributes:
        who: a person or a job.
        at: now, with a time zone.
        reason: in a few words; required for ``force``.
        force: promote in spite of the gate's findings. It never overrides a signature, a digest or
            a golden output on any runtime.
    """

    who: str
    at: datetime
    reason: str = ""
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse a forced change without a reason."""
        if self.force and not self.reason.strip():
            raise ReleaseError("force needs a reason, which the channel's history keeps")


def promote(
    store: Store,
    channel: Channel,
    bundle: Path,
    request: PromotionRequest,
    trust: Trust,
    margins: Margins,
    timing: Timing = USUAL,
) -> Change:
    """Put a bundle into the store and, if the gate allows it, move the channel to it."""
    before = current(store, channel)
    in_place = before.after if before else None
    version = publish(store, bundle)
    publish_weights(store, version, bundle)
    if version == in_place:
        raise ReleaseError(f"{channel} is at {version} already: nothing to do")
    with _loaded(store, version, trust) as (directory, candidate):
        latency = measure_latency(store, candidate, in_place, trust, timing)
        candidate.runtime.close()  # frees a GPU's memory for the other runtimes
        measured = Measurements(
            latency=latency, parity=measure_parity(directory, trust, request.at)
        )
    _refuse_disagreement(version, measured)
    against: tuple[str, ...] = ()
    if in_place is not None:
        old = parse_manifest(stored_manifest_bytes(store, in_place))
        against = findings(candidate.manifest, old, margins) + latency_findings(latency, margins)
    if against and not request.force:
        raise _gate_refusal(version, f"{channel} is at ({in_place})", against)
    change = _change(channel, "promote", before, version, request, candidate.signed_by, against)
    change = change.model_copy(update={"measured": measured})
    append(store, change)
    return change


def rollback(
    store: Store,
    channel: Channel,
    request: PromotionRequest,
    trust: Trust,
    to: str | None = None,
) -> Change:
    """Move the channel back to the previous version, or to the version ``to``.

    Signature, digests and golden outputs are checked again; the gate is not.
    """
    changes = history(store, channel)
    if not changes:
        raise ReleaseError(f"{channel} is empty: there is nothing to go back from")
    version = _previous(changes) if to is None else _named(changes, to)
    if version is None:
        raise ReleaseError(
            f"no version was in {channel} before {changes[-1].after}: name one with --to"
        )
    if version == changes[-1].after:
        raise ReleaseError(f"{channel} is at {version} already: nothing to do")
    with _loaded(store, version, trust) as (_, bundle):
        signed_by = bundle.signed_by
    change = _change(channel, "rollback", changes[-1], version, request, signed_by, ())
    append(store, change)
    return change


def fetch(store: Store, channel: Channel, to: Path, trust: Trust) -> Change:
    """Write the channel's version to a directory: complete and verified, or not at all."""
    change = current(store, channel)
    if change is None:
        raise ReleaseError(f"{channel} is empty: promote a version first")
    materialise(store, change.after, to, trust)
    fetch_weights(store, change.after, to)
    return change


@contextmanager
def _loaded(store: Store, version: Version, trust: Trust) -> Iterator[tuple[Path, Bundle]]:
    """Load the version from the store, as a worker will; its files are removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="synthgate-release-") as directory:
        copy = Path(directory) / "bundle"
        materialise(store, version, copy, trust)
        bundle = load_bundle(copy, trust=trust)
        with closing(bundle.runtime):
            yield copy, bundle


def _gate_refusal(version: Version, current_version: str, against: Sequence[str]) -> ReleaseError:
    listed = "\n  ".join(against)
    return ReleaseError(
        f"{version} may be worse than what {current_version}:\n  {listed}\n"
        "Promote a better one, or this one with --force and a --reason"
    )


def _refuse_disagreement(version: Version, measured: Measurements) -> None:
    problems = "\n  ".join(disagreements(measured.parity))
    if problems:
        raise ReleaseError(
            f"{version} is not the same on every runtime of this machine, which --force does not "
            f"override:\n  {problems}\nLeave the file out of the bundle, or make it again"
        )


def _change(
    channel: Channel,
    action: str,
    before: Change | None,
    after: Version,
    request: PromotionRequest,
    signed_by: str | None,
    against: tuple[str, ...],
) -> Change:
    return Change.model_validate(
        {
            "id": uuid.uuid4().hex,
            "serial": before.serial + 1 if before else 1,
            "channel": channel,
            "action": action,
            "at": request.at,
            "who": request.who,
            "before": before.after if before else None,
            "after": after,
            "reason": request.reason,
            "forced": bool(against),
            "findings": against,
            "signed_by": signed_by,
        }
    )


def _previous(changes: list[Change]) -> Version | None:
    """The version before the last promotion of the current one, so repeated calls go further back."""
    version = changes[-1].after
    for change in reversed(changes):
        if change.action == "promote" and change.after == version:
            return change.before
    return None


def _named(changes: list[Change], to: str) -> Version:
    versions = {
        change.after for change in changes if to in (change.after.version, str(change.after))
    }
    if len(versions) != 1:
        known = ", ".join(sorted({str(change.after) for change in changes}))
        problem = (
            "more than one version" if versions else "no version that was ever in this channel"
        )
        raise ReleaseError(f"{to!r} names {problem}; there were {known}")
    return versions.pop()
