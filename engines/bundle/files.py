"""Atomic writes: a reader sees the old file or the new one, never a part of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_writer(path: Path, *, scratch: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file; when the block ends, sync it to disk and rename it to ``path``.

    If the block raises, the temporary file is removed and ``path`` stays as it was.

    Args:
        path: the file to create or replace.
        scratch: the directory of the temporary file, on the same file system (default: beside
            ``path``).

    Raises:
        OSError: the directory cannot be written.
    """
    temporary = (scratch or path.parent) / f".{path.name}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes | str, *, scratch: Path | None = None) -> None:
    """Write a whole file (text as UTF-8); see ``atomic_writer``."""
    with atomic_writer(path, scratch=scratch) as file:
        file.write(data.encode() if isinstance(data, str) else data)
