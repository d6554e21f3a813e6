"""The bundle that holds plans: a new directory, as a bundle that was signed never changes.

In: a verified bundle, plans. Out: a bundle that has all its files and the plans, not signed.
Errors: ``BundleError``; what is half done is removed.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines.bundle.manifest import (
    MANIFEST_FILE,
    BundleError,
    EngineFile,
    Manifest,
    write_manifest,
)

_PLANS: Final = "plans"


@dataclass(frozen=True)
class Plan:
    """A plan's bytes and what the manifest says of them."""

    engine: EngineFile
    data: bytes


def sm(capability: str) -> str:
    """``sm90`` for the compute capability "9.0"."""
    return f"sm{capability.replace('.', '')}"


def plan_path(
    runtime: str, version: str, capability: str, precision: str, *, hardware_compatible: bool
) -> str:
    """``plans/tensorrt-11.4.0-sm90-fp16.plan``; ``sm80plus`` where later ones may run it too."""
    architecture = f"{sm(capability)}{'plus' if hardware_compatible else ''}"
    return f"{_PLANS}/{runtime}-{version}-{architecture}-{precision}.plan"


def refuse_taken(out: Path) -> None:
    """Refuses a directory that is there already, before any time is spent."""
    if out.exists():
        raise BundleError(f"{out} is there already: remove it, or name another --out")


def write_compiled(
    source: Path,
    manifest: Manifest,
    out: Path,
    plans: Sequence[Plan],
    changes: Mapping[str, object],
) -> Manifest:
    """Write the new bundle; it appears whole or not at all.

    Args:
        source: the bundle that was verified; its signatures are of another manifest and stay.
        manifest: what it said when it was verified.
        out: the new directory.
        plans: what is added; of two with one path, the new one counts.
        changes: other fields of the manifest, by name (``version``, ``tolerances``).
    """
    refuse_taken(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            made = Path(scratch) / "bundle"
            written = _fill(source, manifest, made, plans, changes)
            made.rename(out)
    except OSError as error:
        raise BundleError(
            f"{out} cannot be written ({error.strerror or error}): make its directory writable, or "
            "name another --out"
        ) from error
    return written


def _fill(
    source: Path,
    manifest: Manifest,
    made: Path,
    plans: Sequence[Plan],
    changes: Mapping[str, object],
) -> Manifest:
    replaced = {plan.engine.path for plan in plans}
    for entry in manifest.files:
        if entry.path not in replaced:
            target = made / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / entry.path, target)
    for plan in plans:
        target = made / plan.engine.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(plan.data)
    kept = tuple(one for one in manifest.engines if one.path not in replaced)
    added = tuple(plan.engine for plan in plans)
    ours = [one.runtime for one in added]
    runtimes = tuple(dict.fromkeys([*ours, *manifest.runtimes]))
    update = {**changes, "engines": (*added, *kept), "runtimes": runtimes}
    written = write_manifest(made, manifest.model_copy(update=update))
    _refuse_changed(source, manifest, written, replaced)
    return written


def _refuse_changed(source: Path, before: Manifest, after: Manifest, replaced: set[str]) -> None:
    """What was copied is what was verified: nobody exchanged a file in between."""
    now = {entry.path: entry.sha256 for entry in after.files}
    for entry in before.files:
        if entry.path not in replaced and now.get(entry.path) != entry.sha256:
            raise BundleError(
                f"{source / entry.path} changed while it was copied: {MANIFEST_FILE} says "
                f"{entry.sha256}; copy the whole bundle again"
            )
