"""``python -m engines verify | show | quantize | compile | keygen | sign | release``.

Exit status: 0 if all was done and every bundle named is in order, 1 if one was refused, 2 for a wrong
command line.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines.bundle.keys import KeyFileError, generate_key, read_private_key, read_trust
from engines.bundle.manifest import BundleError, Manifest, manifest_sha256, read_manifest
from engines.bundle.signatures import (
    read_signatures,
    sign_manifest,
    with_signature,
    write_signatures,
)
from engines.bundle.verify import Bundle, load_bundle, verified_manifest_bytes
from engines.compile.cli import add_compile, add_quantize
from engines.parity.cli import add_options, check_options, verify_all
from engines.release.cli import add_release
from engines.runtime import AUTO
from engines.terminal import Facts, log_to_stderr, positive


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


KEY_VARIABLE: Final = "SYNTHGATE_SIGNING_KEY"


def keygen(path: Path, options: argparse.Namespace, out: Console) -> Facts:
    """Make a key pair; says where it is and what to do with each half."""
    key_id, public = generate_key(path)
    if not options.json:
        out.print(
            f"key {key_id}: {path} signs (keep it secret), {public} is what workers trust",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    return {"key": str(path), "key_id": key_id, "public": str(public), "ok": True}


def sign(directory: Path, options: argparse.Namespace, out: Console) -> Facts:
    """Sign a bundle whose every file is as its manifest says."""
    key = read_private_key(_key_file(options.key))
    # The very bytes that every file was checked against are signed.
    added = sign_manifest(verified_manifest_bytes(directory), key, datetime.now(UTC))
    signatures = with_signature(read_signatures(directory), added)
    write_signatures(directory, signatures)
    if not options.json:
        out.print(
            f"signed {directory} by {added.key_id} ({len(signatures.signatures)} in all)",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    return {
        "bundle": str(directory),
        "ok": True,
        "sha256": added.manifest_sha256,
        "key_id": added.key_id,
        "signatures": [one.key_id for one in signatures.signatures],
    }


def _key_file(named: Path | None) -> Path:
    found = named or os.environ.get(KEY_VARIABLE)
    if not found:
        raise KeyFileError(
            f"no key is named: give --key FILE, or set {KEY_VARIABLE} to the file's path"
        )
    return Path(found)


def verified_facts(bundle: Bundle) -> Facts:
    """What a verified bundle turned out to be."""
    manifest, runtime = bundle.manifest, bundle.runtime
    return {
        "bundle": str(bundle.directory),
        "ok": True,
        "name": manifest.name,
        "version": manifest.version,
        "sha256": bundle.sha256,
        "files": len(manifest.files),
        "bytes": sum(entry.bytes for entry in manifest.files),
        "runtime": runtime.name,
        "precision": runtime.precision,
        "engine_sha256": runtime.engine_sha256,
        "golden_max_difference": bundle.golden_max_difference,
        "tolerance": manifest.tolerances[runtime.precision],
        "signed_by": bundle.signed_by or "not checked",
    }


def verified_table(facts: Mapping[str, object]) -> Table:
    """The facts of a verified bundle, one a row."""
    rows = {key.replace("_", " "): str(value) for key, value in facts.items() if key != "ok"}
    return _table("verified: files, runtime and golden outputs agree", rows)


def manifest_tables(manifest: Manifest, sha256: str) -> Iterator[Table]:
    """What a manifest says, a table a subject."""
    yield _table(f"{manifest.name} {manifest.version}", _identity(manifest, sha256))
    yield _thresholds(manifest)
    if manifest.metrics:
        yield _metrics(manifest)
    yield _table("lineage", _lineage(manifest))


def _identity(manifest: Manifest, sha256: str) -> dict[str, str]:
    spec, crops, calibration = manifest.input, manifest.preprocess, manifest.calibration
    size_bytes = sum(entry.bytes for entry in manifest.files)
    return {
        "sha256": sha256,
        "created": manifest.created_at.isoformat(),
        "files": f"{len(manifest.files)}, {size_bytes} bytes",
        "model": f"{manifest.model_file} ({manifest.precision})",
        "runtimes": ", ".join(manifest.runtimes),
        "input": f"{spec.dtype} {spec.layout} {spec.height_px} x {spec.width_px} px, "
        f"batch {spec.batch_min} to {spec.batch_max}",
        "preprocessing": f"version {crops.version}, {crops.crop_policy}, "
        f"up to {crops.max_crops} crops of {crops.crop_px} px",
        "calibration": f"{calibration.id}: sigmoid({calibration.scale:.4g} x logit "
        f"{calibration.bias:+.4g}), {calibration.method} on {calibration.fitted_on}",
    }


def _lineage(manifest: Manifest) -> dict[str, str]:
    lineage = manifest.lineage
    return {
        "code commit": lineage.code_commit,
        "data digest": lineage.data_digest,
        "teacher": lineage.teacher_id,
        "seed": str(lineage.seed),
        "created by": lineage.created_by,
    }


def _thresholds(manifest: Manifest) -> Table:
    table = _columns(
        "thresholds (score >=)", "set", "band", "threshold", "false positives", "of", "measured on"
    )
    for one in manifest.threshold_sets:
        mark = " (default)" if one.id == manifest.default_threshold_set else ""
        for band, point in (("review", one.review), ("block", one.block)):
            table.add_row(
                one.id + mark,
                band,
                f"{point.threshold:.4f}",
                f"{point.fpr:.2%} ({point.fpr_ci_low:.2%} to {point.fpr_ci_high:.2%})",
                str(point.n_real),
                escape(one.measured_on),
            )
    return table


def _metrics(manifest: Manifest) -> Table:
    table = _columns("metrics", "generator", "condition", "seen", "fake", "real", "AUC", "AP")
    for one in manifest.metrics:
        table.add_row(
            escape(one.generator),
            one.condition,
            "yes" if one.seen_in_training else "no",
            str(one.n_fake),
            str(one.n_real),
            f"{one.auc:.3f}",
            f"{one.ap:.3f}",
        )
    return table


def _columns(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _table(title: str, rows: Mapping[str, str]) -> Table:
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(key, escape(value))
    return table
