"""Files that appear whole or not at all.

A process that is killed while it writes leaves the file that was there before. The partial file carries
the process id, so that two processes that write the same file do not disturb each other.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file and move it into place, after its bytes are on the disk.

    Args:
        path: the file; its directory must exist.
        content: the bytes, or a function that writes them into the open file.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write plain values as an indented JSON file."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
