"""Writing a new bundle from a verified one: a signed bundle never changes.

In: a verified bundle, new files and changes of its manifest. Out: an unsigned bundle in a new
directory. Errors: ``BundleError``; an incomplete directory is removed.
"""

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
class PlanFile:
    """A plan's bytes, and its entry in the manifest."""

    engine: EngineFile
    data: bytes


def sm(capability: str) -> str:
    """``sm90`` for the compute capability "9.0"."""
    return f"sm{capability.replace('.', '')}"


def plan_path(
    runtime: str, version: str, capability: str, precision: str, *, hardware_compatible: bool
) -> str:
    """``plans/tensorrt-11.4.0-sm90-fp16.plan``; ``sm80plus`` if later GPUs can run it too."""
    architecture = f"{sm(capability)}{'plus' if hardware_compatible else ''}"
    return f"{_PLANS}/{runtime}-{version}-{architecture}-{precision}.plan"


def refuse_existing(out: Path) -> None:
    """Refuse an existing output directory before any work is done."""
    if out.exists():
        raise BundleError(f"{out} already exists: remove it, or choose another --out")


@contextmanager
def copied_bundle(
    source: Path, manifest: Manifest, out: Path, left_out: Collection[str] = ()
) -> Iterator[Path]:
    """Copy the listed files beside ``out`` for the block to complete, then rename the copy to it.

    Args:
        source: the verified bundle; its manifest and signatures are not copied.
        manifest: its manifest.
        out: the new directory; it appears complete, or not at all if the block raises.
        left_out: files of the manifest that are not copied.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            copy = Path(scratch) / "bundle"
            copy.mkdir()
            for entry in manifest.files:
                if entry.path not in left_out:
                    target = copy / entry.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / entry.path, target)
            yield copy
            copy.rename(out)
    except OSError as error:
        raise BundleError(
            f"{out} cannot be written ({error.strerror or error}): make its directory writable, or "
            "choose another --out"
        ) from error


def refuse_changed(
    source: Path, before: Manifest, after: Manifest, expected: Collection[str]
) -> None:
    """Raise ``BundleError`` if a file changed between verification and copying.

    Args:
        source: the bundle that was verified and copied.
        before: its manifest.
        after: the manifest of the copy.
        expected: the files that are meant to differ.
    """
    digests = {entry.path: entry.sha256 for entry in after.files}
    for entry in before.files:
        if entry.path not in expected and digests.get(entry.path) != entry.sha256:
            raise BundleError(
                f"{source / entry.path} changed while it was copied: {MANIFEST_FILE} says "
                f"{entry.sha256}; copy the whole bundle again"
            )


def write_compiled(
    source: Path,
    manifest: Manifest,
    out: Path,
    plans: Sequence[PlanFile],
    changes: Mapping[str, object],
) -> Manifest:
    """Write the new bundle with its plans; it appears complete or not at all.

    Args:
        source: the bundle that was verified; its signatures are not copied.
        manifest: its manifest at that time.
        out: the new directory.
        plans: the new plans; each replaces a plan of the same path.
        changes: other fields of the manifest, by name (``version``, ``tolerances``).

    Returns:
        The manifest of the new bundle.
    """
    refuse_existing(out)
    replaced = {plan.engine.path for plan in plans}
    kept = tuple(engine for engine in manifest.engines if engine.path not in replaced)
    added = tuple(plan.engine for plan in plans)
    runtimes = [*(engine.runtime for engine in added), *manifest.runtimes]
    update = {
        **changes,
        "engines": (*added, *kept),
        "runtimes": tuple(dict.fromkeys(runtimes)),
    }
    with copied_bundle(source, manifest, out, replaced) as copy:
        for plan in plans:
            target = copy / plan.engine.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(plan.data)
        written = write_manifest(copy, manifest.model_copy(update=update))
        refuse_changed(source, manifest, written, replaced)
    return written
