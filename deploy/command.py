"""The console command ``synthgate``: ``synthgate worker run``, ``synthgate engines verify``, ...

In: a group (worker, trainer or engines) and that group's arguments. Out: the exit status of the group's
command; 2 for a wrong command line or a group whose packages are not installed. ``python -m GROUP`` does
the same without this command.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from engines import __version__

GROUPS = {
    "worker": "image events in, verdicts out; scores files, replays dead letters",
    "trainer": "trains, evaluates and exports a detector (extra: trainer)",
    "engines": "verifies, compiles, signs and releases bundles",
}
EXIT_USAGE = 2

Main = Callable[[Sequence[str], Mapping[str, str], str], int]


def main() -> int:
    """Run one command of one group; returns the exit status."""
    # Only the group's name is read here: everything after it belongs to the group's own parser.
    options = _parser().parse_args(sys.argv[1:2])
    group: str = options.group
    try:
        # A group imports what a command needs when that command runs.
        run: Main = importlib.import_module(f"{group}.cli").main
        return run(sys.argv[2:], os.environ, f"synthgate {group}")
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"synthgate {group}: the package {error.name} is not installed. "
            f"Install Synthgate with its extra, from a checkout: pip install '.[{group}]'\n"
        )
        return EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, GROUPS))
    parser = argparse.ArgumentParser(
        prog="synthgate",
        usage="synthgate [-h] [--version] GROUP COMMAND ...",
        description="Tells AI-generated images from real ones in a stream of upload events.",
        epilog="groups:\n"
        + "\n".join(f"  {name:<{width}}  {text}" for name, text in GROUPS.items())
        + "\n\n`synthgate GROUP --help` lists the commands of a group.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("group", choices=GROUPS, metavar="GROUP", help="see below")
    return parser


if __name__ == "__main__":
    sys.exit(main())
