"""Signatures of a bundle: ``signatures.json``, beside the manifest that they are of.

In: the bytes of a manifest, and keys. Out: signatures, or the id of the trusted key that signed.
Errors: ``SignatureError``, whose message says what to do.

Each is Ed25519 (RFC 8032) over a preamble (what is signed, by which key, when) and the exact bytes
of the manifest, which names the SHA-256 of every other file. Several keys may sign, so that a key
can be replaced while workers still trust the one before.
"""

import base64
import binascii
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from engines.bundle.keys import Trust, key_id
from engines.bundle.manifest import (
    MANIFEST_FILE,
    SIGNATURES_FILE,
    BundleError,
    Part,
    Sha256,
    UtcTime,
)

_CONTEXT: Final = "synthgate bundle manifest, signature 1"
_MAX_SIGNATURES_BYTES: Final = 64 * 1024  # one has some 300


class SignatureError(BundleError):
    """The bundle carries no signature that is trusted."""


class Signature(Part):
    """One key's signature of one manifest."""

    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    algorithm: Literal["ed25519"] = "ed25519"
    signed_at: UtcTime
    manifest_sha256: Sha256
    signature: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]


class Signatures(Part):
    """The whole of ``signatures.json``."""

    schema_version: Literal[1] = 1
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=64)]


def sign_manifest(manifest_bytes: bytes, key: Ed25519PrivateKey, now: datetime) -> Signature:
    """Sign a manifest's bytes; ``now`` is signed too."""
    signer, moment = key_id(key.public_key()), now.astimezone(UTC)
    signature = key.sign(_message(manifest_bytes, signer, moment))
    return Signature(
        key_id=signer,
        signed_at=moment,
        manifest_sha256=hashlib.sha256(manifest_bytes).hexdigest(),
        signature=base64.b64encode(signature).decode(),
    )


def check_signatures(
    manifest_bytes: bytes, found: Signatures | None, trust: Trust, where: Path
) -> str | None:
    """The id of the trusted key that signed these bytes; None only where unsigned is allowed.

    A signature that claims to be a trusted key's of these bytes and is not is refused always.
    """
    sha256 = hashlib.sha256(manifest_bytes).hexdigest()
    ours = [one for one in found.signatures if one.key_id in trust.keys] if found else []
    for one in ours:
        if one.manifest_sha256 == sha256 and _is_genuine(manifest_bytes, one, trust):
            return one.key_id
    if ours:
        raise SignatureError(
            f"{where / MANIFEST_FILE} was altered after {ours[0].key_id} signed it, or the "
            "signature was: copy the whole bundle again, or have it signed again"
        )
    if trust.allow_unsigned:
        return None
    trusted = ", ".join(sorted(trust.keys)) or "none"
    if found is None:
        raise SignatureError(
            f"{where} is not signed ({SIGNATURES_FILE} is missing); trusted keys: {trusted}. Sign "
            "it with `python -m engines sign`, or allow unsigned bundles where nothing depends on it"
        )
    signers = ", ".join(one.key_id for one in found.signatures)
    raise SignatureError(
        f"{where} is signed by {signers}, which is not trusted; trusted keys: {trusted}. Have it "
        "signed by one of them, or add the signer's public key to the trusted ones"
    )


def _is_genuine(manifest_bytes: bytes, one: Signature, trust: Trust) -> bool:
    message = _message(manifest_bytes, one.key_id, one.signed_at)
    try:
        trust.keys[one.key_id].verify(base64.b64decode(one.signature, validate=True), message)
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _message(manifest_bytes: bytes, signer: str, moment: datetime) -> bytes:
    preamble = {"context": _CONTEXT, "key_id": signer, "signed_at": moment.isoformat()}
    return json.dumps(preamble, sort_keys=True).encode() + b"\n" + manifest_bytes


def parse_signatures(data: bytes, where: Path | str) -> Signatures:
    """Read a signatures file from its bytes; ``where`` is named in the messages."""
    try:
        return Signatures.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise SignatureError(f"{where} is not valid ({first}): sign the bundle again") from error


def read_signatures(directory: Path) -> Signatures | None:
    """The directory's signatures; None if there is no such file."""
    path = directory / SIGNATURES_FILE
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIGNATURES_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SignatureError(f"{path} cannot be read ({error.strerror}): check it") from error
    if len(data) > _MAX_SIGNATURES_BYTES:
        raise SignatureError(f"{path} is over {_MAX_SIGNATURES_BYTES} bytes: sign again")
    return parse_signatures(data, path)


def with_signature(found: Signatures | None, added: Signature) -> Signatures:
    """The signatures and one more; what was of another manifest, or of the same key, goes."""
    kept = [
        one
        for one in (found.signatures if found else ())
        if one.manifest_sha256 == added.manifest_sha256 and one.key_id != added.key_id
    ]
    return Signatures(signatures=(*kept, added))


def signatures_bytes(signatures: Signatures) -> bytes:
    """What ``signatures.json`` holds."""
    return signatures.model_dump_json(indent=2).encode() + b"\n"


def write_signatures(directory: Path, signatures: Signatures) -> None:
    """Write ``signatures.json``: whole, or not at all."""
    path = directory / SIGNATURES_FILE
    temporary = directory.parent / f".{directory.name}.{SIGNATURES_FILE}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            file.write(signatures_bytes(signatures))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SignatureError(
            f"{path} cannot be written ({error.strerror}): check the directory"
        ) from error
