"""``python -m engines keygen`` and ``sign``: what the one who answers for a bundle runs.

Errors: ``BundleError``, as for every command.
"""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from engines.keys import KeyFileError, generate_key, read_private_key
from engines.render import Facts
from engines.sign import read_signatures, sign_manifest, with_signature, write_signatures
from engines.verify import verified_manifest_bytes

KEY_VARIABLE: Final = "SYNTHGATE_SIGNING_KEY"


def keygen(path: Path, options: argparse.Namespace, out: Console) -> Facts:
    """Make a key pair; says where it is and what to do with each half."""
    key_id, public = generate_key(path)
    if not options.json:
        out.print(
            f"key {key_id}: {path} signs (keep it secret), {public} is what workers trust",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    return {"key": str(path), "key_id": key_id, "public": str(public), "ok": True}


def sign(directory: Path, options: argparse.Namespace, out: Console) -> Facts:
    """Sign a bundle whose every file is as its manifest says."""
    key = read_private_key(_key_file(options.key))
    # The very bytes that every file was checked against are signed.
    added = sign_manifest(verified_manifest_bytes(directory), key, datetime.now(UTC))
    signatures = with_signature(read_signatures(directory), added)
    write_signatures(directory, signatures)
    if not options.json:
        out.print(
            f"signed {directory} by {added.key_id} ({len(signatures.signatures)} in all)",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    return {
        "bundle": str(directory),
        "ok": True,
        "sha256": added.manifest_sha256,
        "key_id": added.key_id,
        "signatures": [one.key_id for one in signatures.signatures],
    }


def _key_file(named: Path | None) -> Path:
    found = named or os.environ.get(KEY_VARIABLE)
    if not found:
        raise KeyFileError(
            f"no key is named: give --key FILE, or set {KEY_VARIABLE} to the file's path"
        )
    return Path(found)
