"""Log lines of the command lines: to standard error, so that what a command prints stays its own.

A worker sets up its own logging (``worker.logs``); this is for ``python -m engines`` and ``-m trainer``.
"""

import sys

import structlog


def log_to_stderr() -> None:
    """Send structlog's lines to what is standard error when they are written."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
