"""Signed bundles and what trusts them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engines.bundle.keys import Trust, generate_key, read_private_key, read_trust
from engines.bundle.manifest import read_manifest_bytes
from engines.bundle.signatures import (
    read_signatures,
    sign_manifest,
    with_signature,
    write_signatures,
)


@dataclass(frozen=True)
class Signer:
    """A key pair in files."""

    private: Path
    public: Path
    key_id: str

    @property
    def trust(self) -> Trust:
        """Trust in this key alone."""
        return read_trust([self.public])

    def sign(self, bundle: Path) -> Path:
        """Add this key's signature to the bundle; returns the bundle."""
        key = read_private_key(self.private)
        added = sign_manifest(read_manifest_bytes(bundle), key, datetime.now(UTC))
        write_signatures(bundle, with_signature(read_signatures(bundle), added))
        return bundle


def make_signer(directory: Path, name: str = "release") -> Signer:
    """A new key pair in that directory."""
    private = directory / f"{name}.pem"
    key_id, public = generate_key(private)
    return Signer(private, public, key_id)
