"""What a builder measured of its kernels, kept for the next build beside the bundle, not in it.

In: where. Out: bytes, or none of them. Errors: ``BundleError`` where the file cannot be written.
"""

import os
from pathlib import Path

from engines.manifest import BundleError


def timing_path(bundle: Path, stem: str) -> Path:
    """Beside the bundle, one for each library, release and GPU architecture (``stem``)."""
    return bundle.parent / f"{bundle.name}.{stem}.timing"


def read_timing(path: Path) -> bytes:
    """What an earlier build left; nothing if there was none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): remove it") from error


def write_timing(path: Path, data: bytes) -> None:
    """Replace it, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BundleError(
            f"{path} cannot be written ({error.strerror}): make its directory writable"
        ) from error
