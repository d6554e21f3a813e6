"""``python -m engines verify DIR...`` and ``python -m engines show DIR...``.

Exit status: 0 if every bundle named is in order, 1 if one was refused, 2 for a wrong command line.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from engines.manifest import BundleError, manifest_sha256, read_manifest
from engines.render import Facts, manifest_tables, verified_facts, verified_table
from engines.runtime import AUTO
from engines.verify import load_bundle


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    act: Callable[[Path, argparse.Namespace, Console], Facts] = options.act
    out, refused = Console(), Console(stderr=True)
    status = 0
    for directory in options.directories:
        try:
            facts = act(directory, options, out)
        except BundleError as error:
            status = 1
            facts = {"bundle": str(directory), "ok": False, "error": str(error)}
            if not options.json:
                refused.print(
                    f"[bold red]refused[/] {escape(str(error))}", highlight=False, soft_wrap=True
                )
        if options.json:
            sys.stdout.write(json.dumps(facts) + "\n")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engines", description="Look at bundles.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify", help="check every file, open the runtime, compare it with the golden outputs"
    )
    verify.add_argument("--runtime", default=AUTO, help="a runtime's name (default: %(default)s)")
    verify.add_argument("--threads", type=_positive, default=1, help="default: %(default)s")
    verify.set_defaults(act=_verify)
    show = commands.add_parser("show", help="print a manifest, checking nothing else")
    show.set_defaults(act=_show)
    for command in (verify, show):
        command.add_argument("directories", nargs="+", type=Path, metavar="DIR")
        command.add_argument("--json", action="store_true", help="one line of JSON for each bundle")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _verify(directory: Path, options: argparse.Namespace, out: Console) -> Facts:
    bundle = load_bundle(directory, runtime=options.runtime, threads=options.threads)
    try:
        facts = verified_facts(bundle)
    finally:
        bundle.runtime.close()
    if not options.json:
        out.print(verified_table(facts))
    return facts


def _show(directory: Path, options: argparse.Namespace, out: Console) -> Facts:
    manifest, sha256 = read_manifest(directory), manifest_sha256(directory)
    if not options.json:
        for table in manifest_tables(manifest, sha256):
            out.print(table)
    return {
        "bundle": str(directory),
        "sha256": sha256,
        "manifest": manifest.model_dump(mode="json"),
    }


if __name__ == "__main__":
    sys.exit(main())
