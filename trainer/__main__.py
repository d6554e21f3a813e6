"""The trainer's commands; ``trainer/commands`` has a file for each.

In: arguments and the environment (for ``${NAME}`` in a configuration). Out: files, and text for a
person. A failure says what to do and exits 1; wrong arguments exit 2.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape

from engines.bundle.manifest import BundleError
from engines.terminal import log_to_stderr
from trainer.commands import COMMANDS
from trainer.commands.options import Command, common_parser
from trainer.errors import TrainerError
from trainer.memory import keep_memory


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    log_to_stderr()
    keep_memory()
    console = Console()
    run: Command = options.run
    try:
        run(options, environment, console)
    except (TrainerError, BundleError) as error:
        # Never wrapped: a path that is broken over two lines cannot be copied, nor found by a search.
        text = f"[bold red]error:[/] {escape(str(error))}"
        Console(stderr=True).print(text, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; go on with --resume")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    parsers = parser.add_subparsers(dest="command", required=True)
    common = common_parser()
    for command in COMMANDS:
        command.add(parsers, common)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
