"""Loading a bundle: its signature, every file's digest, the runtime against the golden outputs.

In: a bundle's directory. Out: a ``Bundle``, ready to infer. Errors: ``BundleError``, whose
message names the file and says what to do.

Each file is opened once and the hashed bytes are the loaded bytes, so replacing a file meanwhile has
no effect.
"""

import hashlib
import io
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines.bundle.golden import check_golden, read_golden
from engines.bundle.keys import Trust
from engines.bundle.manifest import (
    MANIFEST_FILE,
    SIGNATURES_FILE,
    BundleError,
    FileEntry,
    Manifest,
    parse_manifest,
    read_manifest_bytes,
)
from engines.bundle.signatures import check_signatures, read_signatures
from engines.preprocess import PREPROCESS_VERSION
from engines.runtime import AUTO, Device, Runtime, open_runtime
from engines.runtime.machine import Machine, this_machine
from engines.runtime.selection import needed_paths

_CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Bundle:
    """A verified bundle with its runtime open; close it with ``bundle.runtime.close()``.

    Attributes:
        directory: where it was read from; nothing is read from there again.
        manifest: its manifest.
        runtime: its model, loaded.
        sha256: its identity, the digest of its manifest's bytes.
        golden_max_difference: the largest difference from a reference logit, at loading.
        signed_by: the id of the trusted key that signed it; None if none did or none was required.
    """

    directory: Path
    manifest: Manifest
    runtime: Runtime
    sha256: str
    golden_max_difference: float
    signed_by: str | None = None


@dataclass(frozen=True)
class Verified:
    """A bundle whose signature and files are in order; its model is not loaded yet.

    Attributes:
        directory: where it was read from.
        manifest: its manifest.
        sha256: its identity, the digest of its manifest's bytes.
        signed_by: as in ``Bundle``.
        files: the verified bytes of the files that this machine may load, by path.
        golden_bytes: the verified bytes of the golden file.
    """

    directory: Path
    manifest: Manifest
    sha256: str
    signed_by: str | None
    files: Mapping[str, bytes]
    golden_bytes: bytes


@dataclass(frozen=True)
class _Checked:
    manifest: Manifest
    manifest_bytes: bytes
    signed_by: str | None
    kept: Mapping[str, bytes]


def load_bundle(
    directory: Path,
    *,
    runtime: str = AUTO,
    threads: int = 1,
    trust: Trust | None = None,
    device: Device = "auto",
) -> Bundle:
    """Verify signature and files, open the runtime, compare it with the golden outputs.

    Args:
        directory: the bundle.
        runtime: a runtime's name, or "auto".
        threads: how many threads one inference may use.
        trust: whose signature it needs; None to skip the check, for a bundle of one's own.
        device: "gpu" or "cpu" to allow only that; "auto" for either.

    Raises:
        BundleError: it must not be used; ``SignatureError`` because of its signature.
    """
    machine = this_machine()
    verified = read_bundle(directory, machine, trust)
    manifest = verified.manifest
    golden = read_golden(verified.golden_bytes)
    opened = open_runtime(
        runtime, manifest, verified.files, threads, device=device, machine=machine
    )
    try:
        difference = check_golden(opened, manifest, golden)
    except BundleError:
        opened.close()
        raise
    return Bundle(directory, manifest, opened, verified.sha256, difference, verified.signed_by)


def read_bundle(directory: Path, machine: Machine, trust: Trust | None = None) -> Verified:
    """Verify signature and files, and keep the bytes that the machine may load.

    Raises:
        BundleError: as ``load_bundle``, except for the runtime and its golden outputs.
    """
    checked = _verify(directory, trust, machine)
    manifest = checked.manifest
    if manifest.preprocess.version != PREPROCESS_VERSION:
        raise BundleError(
            f"{directory} was made with preprocessing {manifest.preprocess.version!r}, this "
            f"release has {PREPROCESS_VERSION!r}: export it again, or run the release that made it"
        )
    return Verified(
        directory,
        manifest,
        hashlib.sha256(checked.manifest_bytes).hexdigest(),
        checked.signed_by,
        checked.kept,
        checked.kept[manifest.golden_file],
    )


def verify_files(directory: Path, trust: Trust | None = None) -> Manifest:
    """Check every file against its digest; refuse missing and unlisted files and wrong signatures."""
    return _verify(directory, trust).manifest


def verified_manifest_bytes(directory: Path) -> bytes:
    """The manifest's bytes after checking every file: what a signer may sign."""
    return _verify(directory, None).manifest_bytes


def _verify(directory: Path, trust: Trust | None, machine: Machine | None = None) -> _Checked:
    """Check everything, and keep the bytes that ``machine`` may load (none without a machine)."""
    manifest_bytes = read_manifest_bytes(directory)
    signed_by = None
    if trust is not None:  # before a byte of the bundle is interpreted
        signed_by = check_signatures(manifest_bytes, read_signatures(directory), trust, directory)
    manifest = parse_manifest(manifest_bytes, directory / MANIFEST_FILE)
    entries = {entry.path: entry for entry in manifest.files}
    engines = [engine.path for engine in manifest.engines]
    for needed in (manifest.model_file, manifest.golden_file, *engines):
        if needed not in entries:
            raise BundleError(
                f"{directory / MANIFEST_FILE} lists no {needed}: export the bundle again"
            )
    _refuse_unlisted(directory, set(entries))
    loaded: frozenset[str] = frozenset()
    if machine is not None:
        loaded = needed_paths(manifest, machine) | {manifest.golden_file}
    read = {
        path: _read_verified(directory, entry, keep=path in loaded)
        for path, entry in entries.items()
    }
    kept = {path: data for path, data in read.items() if path in loaded}
    return _Checked(manifest, manifest_bytes, signed_by, kept)


def _refuse_unlisted(directory: Path, listed: set[str]) -> None:
    allowed = listed | {MANIFEST_FILE, SIGNATURES_FILE}
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise BundleError(
                f"{path} is a symbolic link, which may lead anywhere: put the file itself there"
            )
        if not path.is_dir() and relative not in allowed:
            raise BundleError(
                f"{path} is not listed in {MANIFEST_FILE}: remove it, or export the bundle again"
            )


def _read_verified(directory: Path, entry: FileEntry, *, keep: bool) -> bytes:
    """Read and hash a file; returns its bytes if ``keep``, else nothing."""
    path = directory / entry.path
    digest, chunks = hashlib.sha256(), []
    try:
        with io.open(path, "rb", opener=_open_no_follow) as file:  # noqa: UP020  Path.open takes no opener
            _check_status(path, os.fstat(file.fileno()), entry)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                chunks += [chunk] if keep else []
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing: copy the whole bundle again") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): check it") from error
    if digest.hexdigest() != entry.sha256:
        raise BundleError(
            f"{path} was altered: its SHA-256 is {digest.hexdigest()}, {MANIFEST_FILE} says "
            f"{entry.sha256}: copy the whole bundle again"
        )
    return b"".join(chunks)


def _open_no_follow(path: str, flags: int) -> int:
    # Does not follow a link created after the directory was listed, nor wait for a pipe.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _check_status(path: Path, status: os.stat_result, entry: FileEntry) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} is not a plain file: copy the whole bundle again")
    if status.st_size != entry.bytes:
        raise BundleError(
            f"{path} has {status.st_size} bytes, {MANIFEST_FILE} says {entry.bytes}: "
            "copy the whole bundle again"
        )
