"""What a person sees of the bar in a real pseudo-terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

TEXT = (
    "step 120/5600  bce 0.412 noise 0.993 glob 0.012  targets 1200  "
    "38.2 images/s (student 60%, teacher 20%, data 1%, validation 19%)"
)
SCRIPT = f"""
from rich.console import Console
from trainer.progress import ProgressBar
with ProgressBar(Console(), "training") as bar:
    bar.show(1000, 5600, "begin")
    bar.show(2800, 5600, {TEXT!r})
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def screen(columns: int) -> list[str]:
    """The last picture that the command draws on a terminal of that width, line by line."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "NO_COLOR"}}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm"},
        cwd=Path(__file__).parents[3],
    ):
        os.close(theirs)
        data = b""
        try:
            while part := os.read(ours, 65536):
                data += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    text = ESCAPES.sub("", data.decode().replace("\r", ""))
    return [line for line in text.split("\n") if line.strip()][-2:]


@pytest.mark.parametrize("columns", [80, 140])
def test_the_bar_keeps_its_width_and_the_text_a_line_of_its_own(columns: int) -> None:
    """No line is longer than the terminal; what does not fit is cut from the text."""
    bar, text = screen(columns)
    assert re.fullmatch(r"training [━╸╺]{20,} +50% .* left *", bar), bar
    assert max(len(bar), len(text)) <= columns
    assert text.rstrip() == (TEXT if len(TEXT) <= columns else f"{TEXT[: columns - 1]}…")
