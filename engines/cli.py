"""The command line: ``verify | show | keygen | sign | quantize | compile | release``.

``python -m engines`` and the console command ``synthgate engines`` both call ``main``.

Exit status: 0 if everything was done and every bundle is in order, 1 if one was refused, 2 for a
wrong command line.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

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
from engines.compile.cli import add_compile, add_quantize, quantize
from engines.parity.cli import add_options, check_options, verify_all
from engines.release.cli import add_release
from engines.runtime import AUTO
from engines.terminal import (
    Facts,
    columns,
    key_values,
    log_to_stderr,
    positive,
    report_refusal,
    say,
    write_json,
)

KEY_VARIABLE: Final = "SYNTHGATE_SIGNING_KEY"

_Act = Callable[[Path, argparse.Namespace], Facts]


def main(
    arguments: Sequence[str], environment: Mapping[str, str], prog: str = "python -m engines"
) -> int:
    """Run the command line.

    Args:
        arguments: the words after the program's name.
        environment: the environment variables; ``SYNTHGATE_SIGNING_KEY`` names the signing key.
        prog: the program's name in messages.

    Returns:
        The exit status.
    """
    parser = _parser(environment, prog)
    options = parser.parse_args(arguments)
    if "all_runtimes" in options:
        check_options(parser, options)
    log_to_stderr()
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _parser(environment: Mapping[str, str], prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description="Check, compile, sign and release bundles."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")

    verify = add("verify", "check every file and compare a runtime with the golden outputs")
    verify.add_argument("--runtime", default=AUTO, help="a runtime's name (default: %(default)s)")
    verify.add_argument(
        "--threads", type=positive, default=1, help="threads of one inference (default: 1)"
    )
    verify.add_argument(
        "--trusted-keys",
        nargs="+",
        type=Path,
        metavar="PEM",
        help="require a signature by one of these keys (files, or directories of *.pem)",
    )
    add_options(verify)
    show = add("show", "print a manifest without checking the bundle")
    keygen = add("keygen", "create an Ed25519 key pair: FILE and its public half")
    sign = add("sign", "check the files of bundles and sign them")
    sign.add_argument(
        "--key",
        type=Path,
        default=environment.get(KEY_VARIABLE) or None,
        help=f"private key in PEM (default: {KEY_VARIABLE})",
    )
    acts: tuple[tuple[argparse.ArgumentParser, _Act, str, str], ...] = (
        (verify, _verify, "DIR", "a bundle"),
        (show, _show, "DIR", "a bundle"),
        (keygen, _keygen, "FILE", "the private key to create, such as release.pem"),
        (sign, _sign, "DIR", "a bundle"),
    )
    for command, act, metavar, text in acts:
        command.add_argument("directories", nargs="+", type=Path, metavar=metavar, help=text)
        command.add_argument(
            "--json", action="store_true", help=f"print one line of JSON per {metavar}"
        )
        command.set_defaults(run=partial(_run_each, act))
    add_quantize(commands).set_defaults(run=partial(_run_each, quantize))
    add_compile(commands)
    add_release(commands)
    return parser


def _run_each(act: _Act, options: argparse.Namespace) -> int:
    """Run a command on each of its directories; a refusal does not stop the others."""
    status = 0
    for directory in options.directories:
        try:
            facts = act(directory, options)
        except BundleError as error:
            status = 1
            report_refusal(error, {"bundle": str(directory)} if options.json else None)
            continue
        status = status if facts.get("ok", True) else 1
        if options.json:
            write_json(facts)
    return status


def _verify(directory: Path, options: argparse.Namespace) -> Facts:
    trust = read_trust(options.trusted_keys) if options.trusted_keys else None
    if options.all_runtimes:
        return verify_all(directory, options, trust)
    bundle = load_bundle(directory, runtime=options.runtime, threads=options.threads, trust=trust)
    try:
        facts = _verified_facts(bundle)
    finally:
        bundle.runtime.close()
    if not options.json:
        rows = {key.replace("_", " "): str(value) for key, value in facts.items() if key != "ok"}
        rows["golden max difference"] = f"{bundle.golden_max_difference:.3g}"
        title = "verified: files, runtime and golden outputs agree"
        Console().print(key_values(title, rows))
    return facts


def _verified_facts(bundle: Bundle) -> Facts:
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


def _keygen(path: Path, options: argparse.Namespace) -> Facts:
    """Create a key pair and say what to do with each half."""
    key_id, public = generate_key(path)
    if not options.json:
        say(f"key {key_id}: {path} signs (keep it secret), {public} is what workers trust")
    return {"key": str(path), "key_id": key_id, "public": str(public), "ok": True}


def _sign(directory: Path, options: argparse.Namespace) -> Facts:
    """Sign a bundle after checking every file against the manifest."""
    if options.key is None:
        raise KeyFileError(f"no signing key: pass --key FILE or set {KEY_VARIABLE} to its path")
    key = read_private_key(options.key)
    # Sign the same bytes that the files were checked against.
    signature = sign_manifest(verified_manifest_bytes(directory), key, datetime.now(UTC))
    signatures = with_signature(read_signatures(directory), signature)
    write_signatures(directory, signatures)
    if not options.json:
        say(f"signed {directory} by {signature.key_id} ({len(signatures.signatures)} in all)")
    return {
        "bundle": str(directory),
        "ok": True,
        "sha256": signature.manifest_sha256,
        "key_id": signature.key_id,
        "signatures": [signature.key_id for signature in signatures.signatures],
    }


def _show(directory: Path, options: argparse.Namespace) -> Facts:
    manifest, sha256 = read_manifest(directory), manifest_sha256(directory)
    if not options.json:
        out = Console()
        for table in manifest_tables(manifest, sha256):
            out.print(table)
    return {
        "bundle": str(directory),
        "sha256": sha256,
        "manifest": manifest.model_dump(mode="json"),
    }


def manifest_tables(manifest: Manifest, sha256: str) -> Iterator[Table]:
    """The tables of ``show``: identity, thresholds, metrics, lineage."""
    yield key_values(f"{manifest.name} {manifest.version}", _identity(manifest, sha256))
    yield from _thresholds(manifest)
    if manifest.metrics:
        yield _metrics(manifest)
    lineage = manifest.lineage
    yield key_values(
        "lineage",
        {
            "code commit": lineage.code_commit,
            "data digest": lineage.data_digest,
            "teacher": lineage.teacher_id,
            "seed": str(lineage.seed),
            "created by": lineage.created_by,
        },
    )


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


def _thresholds(manifest: Manifest) -> Iterator[Table]:
    names = ("set", "band", "score >=", "false positives", "of")
    table = columns("thresholds", names, wide=("set",))
    for thresholds in manifest.threshold_sets:
        mark = " (default)" if thresholds.id == manifest.default_threshold_set else ""
        for band, point in thresholds.points().items():
            name = escape(thresholds.id + mark) if band == "review" else ""
            cells = (name, band, f"{point.threshold:.4f}", point.rate_text(), str(point.n_real))
            table.add_row(*cells)
    yield table
    measured_on = {thresholds.id: thresholds.measured_on for thresholds in manifest.threshold_sets}
    yield key_values("thresholds measured on", measured_on)


def _metrics(manifest: Manifest) -> Table:
    names = ("generator", "condition", "seen", "fake", "real", "AUC", "AP")
    table = columns("metrics", names, wide=("generator",))
    for metric in manifest.metrics:
        table.add_row(
            escape(metric.generator),
            metric.condition,
            "yes" if metric.seen_in_training else "no",
            str(metric.n_fake),
            str(metric.n_real),
            f"{metric.auc:.3f}",
            f"{metric.ap:.3f}",
        )
    return table
