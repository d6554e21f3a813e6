"""Versions in a store: how a bundle is stored once and written out unchanged.

In: a bundle's directory, or a version. Out: a version, or a directory. Errors: ``BundleError``.

- ``blobs/SHA256`` holds a file's bytes, shared by all versions with that file.
- ``versions/NAME/VERSION/manifest.json`` creates the version, so it is written last.
- ``versions/NAME/VERSION/signatures/KEY.json`` holds the signature of a key; keys can be added.
"""

import hashlib
import os
import shutil
import uuid
from pathlib import Path

from engines.bundle.files import write_atomically
from engines.bundle.keys import Trust
from engines.bundle.manifest import (
    MANIFEST_FILE,
    WEIGHTS_SHA256,
    BundleError,
    manifest_sha256,
    parse_manifest,
    weights_file,
)
from engines.bundle.signatures import (
    Signatures,
    parse_signatures,
    read_signatures,
    write_signatures,
)
from engines.bundle.verify import verified_manifest_bytes, verify_files
from engines.release.records import Version
from engines.release.store import ReleaseError, Store, create_or_same


def publish(store: Store, directory: Path) -> Version:
    """Store a bundle; objects that exist already stay as they are."""
    manifest_bytes = verified_manifest_bytes(directory)
    manifest = parse_manifest(manifest_bytes)
    sha256 = hashlib.sha256(manifest_bytes).hexdigest()
    version = Version(name=manifest.name, version=manifest.version, manifest_sha256=sha256)
    _refuse_taken(version, store.read(_manifest_key(version)))
    for entry in manifest.files:
        data = (directory / entry.path).read_bytes()
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise ReleaseError(f"{directory / entry.path} changed while it was read: repeat")
        if not create_or_same(store, f"blobs/{entry.sha256}", data):
            raise ReleaseError(f"blobs/{entry.sha256} in the store is damaged: remove it, repeat")
    if not create_or_same(store, _manifest_key(version), manifest_bytes):
        _refuse_taken(version, store.read(_manifest_key(version)))
    _add_signatures(store, version, read_signatures(directory))
    return version


def _add_signatures(store: Store, version: Version, signatures: Signatures | None) -> None:
    for signature in signatures.signatures if signatures else ():
        if signature.manifest_sha256 == version.manifest_sha256:
            data = Signatures(signatures=(signature,)).model_dump_json(indent=2).encode()
            key = f"{_version_key(version)}/signatures/{signature.key_id}.json"
            create_or_same(store, key, data)


def _refuse_taken(version: Version, stored: bytes | None) -> None:
    if stored is not None and hashlib.sha256(stored).hexdigest() != version.manifest_sha256:
        raise ReleaseError(
            f"{version} is in the store with other bytes (manifest "
            f"{hashlib.sha256(stored).hexdigest()[:12]}, this one {version.manifest_sha256[:12]}). "
            "A version never changes: export this bundle under a new version"
        )


def materialise(store: Store, version: Version, to: Path, trust: Trust) -> None:
    """Write a version to a directory, complete and verified, or not at all.

    A directory that already holds this version is only verified.
    """
    if to.exists():
        _refuse_other(version, to)
        verify_files(to, trust)
        return
    temporary = to.parent / f".{to.name}.{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
        _write(store, version, temporary)
        verify_files(temporary, trust)
        os.rename(temporary, to)  # noqa: PTH104  unlike Path.replace, it fails if the target exists
    except OSError as error:
        raise ReleaseError(
            f"{to} cannot be written ({error.strerror}): nothing was put there; make room and repeat"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_other(version: Version, to: Path) -> None:
    try:
        same = manifest_sha256(to) == version.manifest_sha256
    except BundleError:
        same = False
    if not same:
        raise ReleaseError(
            f"{to} exists and is not {version}: name a directory that does not exist"
        )


def _write(store: Store, version: Version, directory: Path) -> None:
    manifest_bytes = stored_manifest_bytes(store, version)
    (directory / MANIFEST_FILE).write_bytes(manifest_bytes)
    for entry in parse_manifest(manifest_bytes).files:
        path = directory / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_verified_object(store, f"blobs/{entry.sha256}", entry.sha256))
    keys = store.keys(f"{_version_key(version)}/signatures")
    read = [parse_signatures(store.read(key) or b"", key) for key in keys]
    signatures = tuple(signature for file in read for signature in file.signatures)
    if signatures:
        write_signatures(directory, Signatures(signatures=signatures))


def publish_weights(store: Store, version: Version, directory: Path) -> None:
    """Store the trained weights beside a bundle, if there are any: a later training starts from them.

    Raises:
        ReleaseError: the file is not the one that the manifest names.
    """
    path, sha256 = weights_file(directory), _weights_sha256(store, version)
    if sha256 is None or not path.exists():
        return
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ReleaseError(
            f"{path} is not the file that the manifest names: export the bundle again"
        )
    create_or_same(store, f"blobs/{sha256}", data)


def fetch_weights(store: Store, version: Version, to: Path) -> None:
    """Write a version's weights beside its directory, if the store has them; no worker needs them."""
    sha256 = _weights_sha256(store, version)
    data = None if sha256 is None else store.read(f"blobs/{sha256}")
    if data is None:
        return
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ReleaseError(f"blobs/{sha256} in the store is damaged: remove it, promote again")
    write_atomically(weights_file(to), data)


def _weights_sha256(store: Store, version: Version) -> str | None:
    config = parse_manifest(stored_manifest_bytes(store, version)).lineage.config
    sha256 = config.get(WEIGHTS_SHA256)
    return sha256 if isinstance(sha256, str) else None


def stored_manifest_bytes(store: Store, version: Version) -> bytes:
    """The manifest of a stored version, with its digest checked."""
    return _verified_object(store, _manifest_key(version), version.manifest_sha256)


def _verified_object(store: Store, key: str, sha256: str) -> bytes:
    data = store.read(key)
    if data is None or hashlib.sha256(data).hexdigest() != sha256:
        state = "missing from the store" if data is None else "altered or cut short in the store"
        raise ReleaseError(f"{key} is {state}: restore it, or roll the channel back")
    return data


def _version_key(version: Version) -> str:
    return f"versions/{version.name}/{version.version}"


def _manifest_key(version: Version) -> str:
    return f"{_version_key(version)}/{MANIFEST_FILE}"
