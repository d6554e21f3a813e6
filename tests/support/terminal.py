"""A command in a real pseudo-terminal of a given width."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ROWS = 40


@dataclass(frozen=True)
class Screen:
    """What a command wrote to its terminal, and how it ended."""

    raw: str
    status: int

    @property
    def text(self) -> str:
        """The output without colours and cursor movements."""
        return ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    @property
    def width(self) -> int:
        """Columns of the longest line."""
        return max((len(line) for line in re.split(r"[\r\n]", self.text)), default=0)


def in_terminal(
    command: Sequence[str | Path], columns: int, environment: Mapping[str, str]
) -> Screen:
    """Run a command to its end in a terminal with ``columns`` columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    sized = {name: text for name, text in environment.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=sized | {"TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(theirs)
    written = bytearray()
    while chunk := _read(ours):
        written += chunk
    os.close(ours)
    return Screen(written.decode(errors="replace"), process.wait())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the last process has closed the terminal
        return b""
