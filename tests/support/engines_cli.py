"""The command line of ``engines``, with this process's environment."""

import os
from collections.abc import Sequence

from engines.cli import main as engines_main


def main(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status."""
    return engines_main(arguments, os.environ)
