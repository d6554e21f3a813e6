"""The signatures of a bundle: ``signatures.json``, beside the signed manifest.

In: the bytes of a manifest, and keys. Out: signatures, or the id of the trusted key that signed.
Errors: ``SignatureError``, whose message says what to do.

A signature is Ed25519 (RFC 8032) over a preamble (purpose, key, time) and the exact bytes of the
manifest, which names the SHA-256 of every other file. Several keys may sign, so that a key can be
replaced while workers still trust the old one.
"""

import base64
import binascii
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from engines.bundle.files import write_atomically
from engines.bundle.keys import Trust, key_id
from engines.bundle.manifest import (
    MANIFEST_FILE,
    SIGNATURES_FILE,
    BundleError,
    Sha256,
    StrictModel,
    UtcTime,
)

_CONTEXT: Final = "synthgate bundle manifest, signature 1"
_MAX_SIGNATURES_BYTES: Final = 64 * 1024  # each signature has about 300


class SignatureError(BundleError):
    """The bundle has no signature of a trusted key."""


class Signature(StrictModel):
    """A key's signature of a manifest."""

    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    algorithm: Literal["ed25519"] = "ed25519"
    signed_at: UtcTime
    manifest_sha256: Sha256
    signature: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]


class Signatures(StrictModel):
    """The whole of ``signatures.json``."""

    schema_version: Literal[1] = 1
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=64)]


def sign_manifest(manifest_bytes: bytes, key: Ed25519PrivateKey, now: datetime) -> Signature:
    """Sign a manifest's bytes and the time."""
    signer, moment = key_id(key.public_key()), now.astimezone(UTC)
    signature = key.sign(_message(manifest_bytes, signer, moment))
    return Signature(
        key_id=signer,
        signed_at=moment,
        manifest_sha256=hashlib.sha256(manifest_bytes).hexdigest(),
        signature=base64.b64encode(signature).decode(),
    )


def check_signatures(
    manifest_bytes: bytes, signatures: Signatures | None, trust: Trust, where: Path
) -> str | None:
    """The id of the trusted key that signed these bytes; None only if unsigned bundles are allowed.

    A wrong signature in the name of a trusted key is always refused.
    """
    sha256 = hashlib.sha256(manifest_bytes).hexdigest()
    listed = signatures.signatures if signatures else ()
    by_trusted = [signature for signature in listed if signature.key_id in trust.keys]
    for signature in by_trusted:
        if signature.manifest_sha256 == sha256 and _is_genuine(manifest_bytes, signature, trust):
            return signature.key_id
    if by_trusted:
        raise SignatureError(
            f"{where / MANIFEST_FILE} was altered after {by_trusted[0].key_id} signed it, or the "
            "signature was: copy the whole bundle again, or have it signed again"
        )
    if trust.allow_unsigned:
        return None
    trusted = ", ".join(sorted(trust.keys)) or "none"
    if signatures is None:
        raise SignatureError(
            f"{where} is not signed ({SIGNATURES_FILE} is missing); trusted keys: {trusted}. Sign "
            "it with `python -m engines sign`, or allow unsigned bundles where nothing depends on it"
        )
    signers = ", ".join(signature.key_id for signature in listed)
    raise SignatureError(
        f"{where} is signed by {signers}, which is not trusted; trusted keys: {trusted}. Have it "
        "signed by one of them, or add the signer's public key to the trusted ones"
    )


def _is_genuine(manifest_bytes: bytes, signature: Signature, trust: Trust) -> bool:
    message = _message(manifest_bytes, signature.key_id, signature.signed_at)
    try:
        raw = base64.b64decode(signature.signature, validate=True)
        trust.keys[signature.key_id].verify(raw, message)
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _message(manifest_bytes: bytes, signer: str, moment: datetime) -> bytes:
    preamble = {"context": _CONTEXT, "key_id": signer, "signed_at": moment.isoformat()}
    return json.dumps(preamble, sort_keys=True).encode() + b"\n" + manifest_bytes


def parse_signatures(data: bytes, where: Path | str) -> Signatures:
    """Read a signatures file from its bytes; messages name ``where``."""
    try:
        return Signatures.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise SignatureError(f"{where} is not valid ({first}): sign the bundle again") from error


def read_signatures(directory: Path) -> Signatures | None:
    """The directory's signatures; None without a signatures file."""
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


def with_signature(signatures: Signatures | None, added: Signature) -> Signatures:
    """The signatures with one added; those of another manifest or of the same key are dropped."""
    kept = [
        signature
        for signature in (signatures.signatures if signatures else ())
        if signature.manifest_sha256 == added.manifest_sha256 and signature.key_id != added.key_id
    ]
    return Signatures(signatures=(*kept, added))


def write_signatures(directory: Path, signatures: Signatures) -> None:
    """Write ``signatures.json`` atomically."""
    path = directory / SIGNATURES_FILE
    try:
        # Not in the bundle's directory, where a file left by a killed process would be refused.
        text = signatures.model_dump_json(indent=2) + "\n"
        write_atomically(path, text, scratch=directory.parent)
    except OSError as error:
        raise SignatureError(
            f"{path} cannot be written ({error.strerror}): check the directory"
        ) from error
