"""``python -m engines verify | show | quantize | compile | keygen | sign | release``.

Exit status: 0 if all was done and every bundle named is in order, 1 if one was refused, 2 for a wrong
command line.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from engines.arguments import positive
from engines.compile_command import add_compile
from engines.keys import read_trust
from engines.logs import log_to_stderr
from engines.manifest import BundleError, manifest_sha256, read_manifest
from engines.parity.cli import add_options, check_options, verify_all
from engines.quantization.cli import add_quantize
from engines.release.cli import add_release
from engines.render import Facts, manifest_tables, verified_facts, verified_table
from engines.runtime import AUTO
from engines.signing import KEY_VARIABLE, keygen, sign
from engines.verify import load_bundle


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    log_to_stderr()
    if "run" in options:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    if "all_runtimes" in options:
        check_options(parser, options)
    act: Callable[[Path, argparse.Namespace, Console], Facts] = options.act
    out, refused = Console(), Console(stderr=True)
    status = 0
    for directory in options.directories:
        try:
            facts = act(directory, options, out)
            status = status if facts.get("ok", True) else 1
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
    parser = argparse.ArgumentParser(
        prog="python -m engines", description="Check, compile, sign and release bundles."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify", help="check every file, open the runtime, compare it with the golden outputs"
    )
    verify.add_argument("--runtime", default=AUTO, help="a runtime's name (default: %(default)s)")
    verify.add_argument("--threads", type=positive, default=1, help="default: %(default)s")
    verify.add_argument(
        "--trusted-keys",
        nargs="+",
        type=Path,
        metavar="PEM",
        help="require a signature by one of these (files, or directories of *.pem)",
    )
    add_options(verify)
    verify.set_defaults(act=_verify)
    show = commands.add_parser("show", help="print a manifest, checking nothing else")
    show.set_defaults(act=_show)
    make = commands.add_parser("keygen", help="make an Ed25519 key pair: FILE and its public half")
    make.set_defaults(act=keygen)
    signer = commands.add_parser("sign", help="sign bundles whose files are as they say")
    signer.add_argument("--key", type=Path, help=f"private key in PEM (else {KEY_VARIABLE})")
    signer.set_defaults(act=sign)
    for command, what in ((verify, "DIR"), (show, "DIR"), (make, "FILE"), (signer, "DIR")):
        command.add_argument("directories", nargs="+", type=Path, metavar=what)
        command.add_argument("--json", action="store_true", help="one line of JSON for each")
    add_quantize(commands)
    add_compile(commands)
    add_release(commands)
    return parser


def _verify(directory: Path, options: argparse.Namespace, out: Console) -> Facts:
    trust = read_trust(options.trusted_keys) if options.trusted_keys else None
    if options.all_runtimes:
        return verify_all(directory, options, trust, out)
    bundle = load_bundle(directory, runtime=options.runtime, threads=options.threads, trust=trust)
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
