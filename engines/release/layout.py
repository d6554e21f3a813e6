"""Versions in a store: how a bundle goes in, once, and comes out as it went in.

In: a bundle's directory, or a version. Out: a version, or a directory. Errors: ``BundleError``.

``blobs/SHA256`` holds each file's bytes, shared by the versions that have it;
``versions/NAME/VERSION/manifest.json`` makes the version, so it is written last;
``versions/NAME/VERSION/signatures/KEY.json`` holds each key's signature: keys can be added.
"""

import hashlib
import os
import shutil
import uuid
from pathlib import Path

from engines.bundle.keys import Trust
from engines.bundle.manifest import MANIFEST_FILE, BundleError, manifest_sha256, parse_manifest
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
    """Put a bundle into the store; what lies there already is left as it is."""
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


def _add_signatures(store: Store, version: Version, found: Signatures | None) -> None:
    for one in found.signatures if found else ():
        if one.manifest_sha256 == version.manifest_sha256:
            data = Signatures(signatures=(one,)).model_dump_json(indent=2).encode()
            create_or_same(store, f"{_version_key(version)}/signatures/{one.key_id}.json", data)


def _refuse_taken(version: Version, stored: bytes | None) -> None:
    if stored is not None and hashlib.sha256(stored).hexdigest() != version.manifest_sha256:
        raise ReleaseError(
            f"{version} is in the store with other bytes (manifest "
            f"{hashlib.sha256(stored).hexdigest()[:12]}, this one {version.manifest_sha256[:12]}). "
            "A version never changes: export this bundle under a new version"
        )


def materialise(store: Store, version: Version, to: Path, trust: Trust) -> None:
    """Write a version as a directory, whole and verified, or not at all.

    A directory that holds this very version already is verified and left.
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
        os.rename(temporary, to)  # noqa: PTH104  Path.replace says less: the target must be new
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
        path.write_bytes(_wanted(store, f"blobs/{entry.sha256}", entry.sha256))
    keys = store.keys(f"{_version_key(version)}/signatures")
    read = [parse_signatures(store.read(key) or b"", key) for key in keys]
    signatures = tuple(one for each in read for one in each.signatures)
    if signatures:
        write_signatures(directory, Signatures(signatures=signatures))


def stored_manifest_bytes(store: Store, version: Version) -> bytes:
    """The manifest of a version in the store, its digest checked."""
    return _wanted(store, _manifest_key(version), version.manifest_sha256)


def _wanted(store: Store, key: str, sha256: str) -> bytes:
    data = store.read(key)
    if data is None or hashlib.sha256(data).hexdigest() != sha256:
        state = "missing from the store" if data is None else "altered or cut short in the store"
        raise ReleaseError(f"{key} is {state}: restore it, or roll the channel back")
    return data


def _version_key(version: Version) -> str:
    return f"versions/{version.name}/{version.version}"


def _manifest_key(version: Version) -> str:
    return f"{_version_key(version)}/{MANIFEST_FILE}"
