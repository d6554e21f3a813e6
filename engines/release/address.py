"""Which store an address means.

In: a directory, or ``s3://BUCKET/PREFIX``. Out: a ``Store``; whether it answers shows at its first use.
Errors: ``StoreError`` where the ``s3`` extra is not installed.
"""

from pathlib import Path

from engines.release.s3 import S3Store
from engines.release.store import DirectoryStore, Store


def open_store(url: str) -> Store:
    """The store of that address."""
    return S3Store(url) if url.startswith("s3://") else DirectoryStore(Path(url))
