"""Whether a bundle may be used: its signature, every file's digest, the model against its golden.

In: a bundle's directory. Out: a ``Bundle``, ready to infer. Errors: ``BundleError``, whose
message names the file and says what to do.

Each file is opened once: the bytes that are hashed are the very bytes that are loaded, so a
file that is replaced in between changes nothing.
"""

import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.golden import Golden, read_golden
from engines.keys import Trust
from engines.manifest import (
    MANIFEST_FILE,
    SIGNATURES_FILE,
    BundleError,
    FileEntry,
    Manifest,
    parse_manifest,
    read_manifest_bytes,
)
from engines.preprocess import PREPROCESS_VERSION, ImageError, Limits, prepare
from engines.runtime import AUTO, Runtime, RuntimeFailure, open_runtime
from engines.sign import check_signatures, read_signatures

_CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Bundle:
    """A verified bundle with its runtime open; close it by ``bundle.runtime.close()``.

    Attributes:
        directory: where it was read from; nothing is read from there again.
        manifest: what it says of itself.
        runtime: its model, loaded.
        sha256: its identity, the digest of its manifest's bytes.
        golden_max_difference: the largest difference from a reference logit, at loading.
        signed_by: the id of the trusted key that signed it; None if none did, or none was asked for.
    """

    directory: Path
    manifest: Manifest
    runtime: Runtime
    sha256: str
    golden_max_difference: float
    signed_by: str | None = None


@dataclass(frozen=True)
class _Verified:
    manifest: Manifest
    manifest_bytes: bytes
    signed_by: str | None
    model_bytes: bytes
    golden_bytes: bytes


def load_bundle(
    directory: Path, *, runtime: str = AUTO, threads: int = 1, trust: Trust | None = None
) -> Bundle:
    """Verify signature and files, open the runtime, compare it with the golden outputs.

    Args:
        directory: the bundle.
        runtime: a runtime's name, or "auto".
        threads: how many threads one inference may use.
        trust: whose signature it needs; None for one's own, whose signature is not looked at.

    Raises:
        BundleError: it must not be used; ``SignatureError`` if the signature is the reason.
    """
    verified = _verify(directory, trust)
    manifest = verified.manifest
    if manifest.preprocess.version != PREPROCESS_VERSION:
        raise BundleError(
            f"{directory} was made with preprocessing {manifest.preprocess.version!r}, this "
            f"release has {PREPROCESS_VERSION!r}: export it again, or run the release that made it"
        )
    golden = read_golden(verified.golden_bytes)
    opened = open_runtime(runtime, manifest, verified.model_bytes, threads)
    try:
        difference = check_golden(opened, manifest, golden)
    except BundleError:
        opened.close()
        raise
    sha256 = hashlib.sha256(verified.manifest_bytes).hexdigest()
    return Bundle(directory, manifest, opened, sha256, difference, verified.signed_by)


def verify_files(directory: Path, trust: Trust | None = None) -> Manifest:
    """Check every file against its digest; refuse missing files, strangers, wrong signatures."""
    return _verify(directory, trust).manifest


def verified_manifest_bytes(directory: Path) -> bytes:
    """The manifest's bytes, if every file is as they say: what a signer may sign."""
    return _verify(directory, None).manifest_bytes


def _verify(directory: Path, trust: Trust | None) -> _Verified:
    manifest_bytes = read_manifest_bytes(directory)
    signed_by = None
    if trust is not None:  # before a byte of the bundle is interpreted
        signed_by = check_signatures(manifest_bytes, read_signatures(directory), trust, directory)
    manifest = parse_manifest(manifest_bytes, directory / MANIFEST_FILE)
    entries = {entry.path: entry for entry in manifest.files}
    for needed in (manifest.model_file, manifest.golden_file):
        if needed not in entries:
            raise BundleError(
                f"{directory / MANIFEST_FILE} lists no {needed}: export the bundle again"
            )
    _refuse_strangers(directory, set(entries))
    kept = {
        path: _read_verified(directory, entry, keep=path in _loaded(manifest))
        for path, entry in entries.items()
    }
    return _Verified(
        manifest,
        manifest_bytes,
        signed_by,
        kept[manifest.model_file],
        kept[manifest.golden_file],
    )


def _loaded(manifest: Manifest) -> tuple[str, str]:
    return manifest.model_file, manifest.golden_file


def _refuse_strangers(directory: Path, listed: set[str]) -> None:
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
    """Hash a file as it is read; returns its bytes, or none of them where ``keep`` is false."""
    path = directory / entry.path
    digest, chunks = hashlib.sha256(), []
    try:
        with io.open(path, "rb", opener=_open_itself) as file:  # noqa: UP020  Path.open takes no opener
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


def _open_itself(path: str, flags: int) -> int:
    # Neither is a link followed that was put there after the walk, nor a pipe waited for.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _check_status(path: Path, status: os.stat_result, entry: FileEntry) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} is not a plain file: copy the whole bundle again")
    if status.st_size != entry.bytes:
        raise BundleError(
            f"{path} has {status.st_size} bytes, {MANIFEST_FILE} says {entry.bytes}: "
            "copy the whole bundle again"
        )


def check_golden(runtime: Runtime, manifest: Manifest, golden: Golden) -> float:
    """The largest absolute difference between the runtime's logits and the reference ones.

    The crops show whether the runtime computes what the trainer did; the encoded files show
    the same of decoding and cropping. A difference over the manifest's tolerance for the
    runtime's precision raises ``BundleError``.
    """
    tolerance = manifest.tolerances.get(runtime.precision)
    if tolerance is None:
        raise BundleError(
            f"{MANIFEST_FILE} has no tolerance for the precision {runtime.precision!r}: "
            "export the bundle with one"
        )
    where = f"{manifest.golden_file} on {runtime.name}"
    try:
        crop_logit_K = _infer_all(runtime, golden.image_NHWC)
        file_logit_M = np.array([_file_logit(runtime, manifest, one) for one in golden.encoded])
    except (RuntimeFailure, ValueError) as error:
        raise BundleError(f"{where} cannot be run ({error}): export the bundle again") from error
    differences = {
        **_differences("image_NHWC", crop_logit_K, golden.logit_K),
        **_differences("encoded", file_logit_M, golden.encoded_logit_M),
    }
    worst = max(differences, key=differences.__getitem__)
    if not differences[worst] <= tolerance:
        raise BundleError(
            f"{where}: the logit of {worst} differs by {differences[worst]:.3g} from the "
            f"reference, over the tolerance {tolerance:.3g}: use another runtime, or export the "
            "bundle again"
        )
    return differences[worst]


def _differences(
    what: str, logit_N: NDArray[np.floating], reference_N: NDArray[np.float32]
) -> dict[str, float]:
    difference_N = np.abs(logit_N.astype(np.float64) - reference_N)
    return {f"{what}[{index}]": float(one) for index, one in enumerate(difference_N)}


def _infer_all(runtime: Runtime, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    steps = range(0, len(image_NHWC), runtime.batch_max)
    batches = [image_NHWC[start : start + runtime.batch_max] for start in steps]
    return np.concatenate([runtime.infer(batch) for batch in batches])


def _file_logit(runtime: Runtime, manifest: Manifest, data: bytes) -> float:
    try:
        prepared = prepare(data, manifest.preprocess, Limits())
    except ImageError as error:
        raise ValueError(f"an encoded file was refused: {error}") from error
    return float(_infer_all(runtime, prepared.image_NHWC).mean())
