"""Keys that sign bundles, and trusted keys: Ed25519, in PEM files.

In: paths. Out: keys. Errors: ``KeyFileError``, whose message names the file and says what to do.

A key's id is the first 16 hexadecimal digits of the SHA-256 of its 32 public bytes (RFC 8032). The id
only finds the key; signatures are checked with the whole key.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from engines.bundle.manifest import BundleError

PUBLIC_SUFFIX: Final = ".pub.pem"
_KEY_ID_DIGITS: Final = 16
_OTHERS: Final = 0o077
_MAX_KEY_BYTES: Final = 64 * 1024  # a usual one has a few hundred


class KeyFileError(BundleError):
    """A key file cannot be used."""


@dataclass(frozen=True)
class Trust:
    """Whose bundles are loaded.

    Attributes:
        keys: the trusted public keys, by id.
        allow_unsigned: load bundles without a trusted signature too; for development only.
    """

    keys: Mapping[str, Ed25519PublicKey]
    allow_unsigned: bool = False


def key_id(key: Ed25519PublicKey) -> str:
    """The key's id: 16 hexadecimal digits."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_KEY_ID_DIGITS]


def generate_key(path: Path) -> tuple[str, Path]:
    """Write a new private key (mode 0600) and its public half beside it; neither may exist.

    Returns:
        The key's id, and the path of the public half (``release.pem``: ``release.pub.pem``).
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public_path = path.with_name(path.name.removesuffix(".pem") + PUBLIC_SUFFIX)
    # The public half first: if writing it fails, no private key is left behind.
    _create(public_path, public, 0o644)
    _create(path, private, 0o600)
    return key_id(key.public_key()), public_path


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise KeyFileError(
            f"{path} exists already, and keys are never replaced: choose another name"
        ) from error
    except OSError as error:
        raise KeyFileError(
            f"{path} cannot be written ({error.strerror}): choose another directory"
        ) from error


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """A signing key, from a PEM file that only its owner may read."""
    data, status = _read(path)
    if stat.S_IMODE(status.st_mode) & _OTHERS:
        raise KeyFileError(
            f"{path} may be read or written by others (mode {stat.S_IMODE(status.st_mode):04o}): "
            "chmod 600 it, and make a new key if others had access"
        )
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(
            f"{path} is not an unencrypted private key in PEM: make one with "
            "`python -m engines keygen`"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(
            f"{path} holds a key that is not Ed25519: make one with `python -m engines keygen`"
        )
    return key


def read_trust(paths: Iterable[Path], *, allow_unsigned: bool = False) -> Trust:
    """The trusted keys of PEM files; a directory stands for its ``*.pem``."""
    keys: dict[str, Ed25519PublicKey] = {}
    for path in paths:
        files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
        if not files:
            raise KeyFileError(f"{path} holds no *.pem file: put the trusted public keys there")
        for file in files:
            key = _read_public_key(file)
            keys[key_id(key)] = key
    if not keys and not allow_unsigned:
        raise KeyFileError(
            "no trusted key is named, so no bundle could be loaded: name the signers' public keys "
            "(or allow unsigned bundles, for development)"
        )
    return Trust(MappingProxyType(keys), allow_unsigned=allow_unsigned)


def _read_public_key(path: Path) -> Ed25519PublicKey:
    data, _ = _read(path)
    if b"PRIVATE KEY" in data:
        raise KeyFileError(
            f"{path} is a private key, which checking bundles does not need: put its public half "
            f"({PUBLIC_SUFFIX}) there"
        )
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(
            f"{path} is not a public key in PEM: name the *{PUBLIC_SUFFIX} file"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path} holds a key that is not Ed25519: name another")
    return key


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            return file.read(_MAX_KEY_BYTES), status
    except OSError as error:
        raise KeyFileError(f"the key {path} cannot be read ({error.strerror}): check it") from error
