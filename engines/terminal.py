"""What the command lines share: kinds of argument, log lines on standard error, JSON facts."""

import argparse
import sys

import structlog


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def log_to_stderr() -> None:
    """Send structlog's lines to what is standard error when they are written."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


Facts = dict[str, object]  # what json.dumps takes
