"""``python -m engines compile``.

Exit status: 0 if the new bundle was made, 1 if it was refused (the reason on standard error), 2 for a
wrong command line.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines.bundle.manifest import BundleError, Precision
from engines.compile.plan import COMPATIBLE_FROM, ConsoleWatcher
from engines.compile.quantize import INT8_FILES, REFERENCE, Asked, Lower, Made, quantized
from engines.parity.evaluation import AUC_LOSS_MAX, Judge, labelled, spread
from engines.runtime.tensorrt_api import TARGETS
from engines.terminal import Facts, positive

if TYPE_CHECKING:
    from engines.compile.build import Compiled, Request  # needs packages that no worker has

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  it has no public name


def add_compile(commands: "Commands") -> None:
    """Add ``compile`` to the parser."""
    text = "build plans for GPUs from a bundle's model, into a new bundle"
    parser = commands.add_parser("compile", help=text, description=text)
    add = parser.add_argument
    add("bundle", type=Path, metavar="DIR")
    add("--target", required=True, choices=sorted(TARGETS))
    add("--out", type=Path, metavar="DIR", help="(default: DIR-TARGET)")
    precisions = get_args(Precision)
    text = "a plan for each, the preferred one first (default: fp32)"
    add("--precision", nargs="+", default=["fp32"], choices=precisions, help=text)
    text = "of the GPU (default: the one at hand; tensorrt-rtx: as --hardware-compatible)"
    add("--compute-capability", metavar="X.Y", help=text)
    text = f"for every GPU from {COMPATIBLE_FROM} on, at some cost in speed"
    add("--hardware-compatible", action="store_true", help=text)
    add("--calibration", type=Path, metavar="DIR", help="images for int8, as they are uploaded")
    text = "real/NAME/*, fake/NAME/*: what each precision costs, measured on the CPU"
    add("--evaluation", type=Path, metavar="DIR", help=text)
    add("--per-folder", type=positive, metavar="N", help="evaluation pictures of each folder (all)")
    text = "a precision that loses more AUC than this is refused (default: %(default)s)"
    add("--auc-loss-max", type=float, default=AUC_LOSS_MAX, metavar="X", help=text)
    text = "how far a logit may lie from its reference, if the manifest is not to say"
    add("--tolerance", nargs="+", default=[], type=_tolerance, metavar="PRECISION=X", help=text)
    add("--version", metavar="SEMVER", help="of the new bundle (default: the same)")
    add("--json", action="store_true", help="one line of JSON")
    parser.set_defaults(run=run_compile)


def _tolerance(text: str) -> tuple[str, float]:
    precision, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if precision not in get_args(Precision) or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not PRECISION=X, for instance fp16=0.05")
    return precision, value


def run_compile(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    told = Console(stderr=True)
    try:
        request, compiled = _compiled(options, ConsoleWatcher(told))
    except BundleError as error:
        if options.json:
            refusal = {"bundle": str(options.bundle), "ok": False, "error": str(error)}
            sys.stdout.write(json.dumps(refusal) + "\n")
        else:
            told.print(
                f"[bold red]refused[/] {escape(str(error))}", highlight=False, soft_wrap=True
            )
        return 1
    if options.json:
        sys.stdout.write(json.dumps(_compiled_facts(request, compiled)) + "\n")
        return 0
    out = Console()
    out.print(_table(compiled))
    text = f"{request.out} is not signed: `python -m engines sign {request.out} --key KEY`"
    out.print(text, highlight=False, soft_wrap=True, markup=False)
    return 0


def _compiled(options: argparse.Namespace, watcher: ConsoleWatcher) -> "tuple[Request, Compiled]":
    target = TARGETS[options.target]
    try:
        # Imported where it is asked for: who verifies or signs needs none of its packages.
        from engines.compile.build import Request, compile_bundle  # noqa: PLC0415  as said above
    except ImportError as error:
        raise BundleError(
            f"compiling needs a package that is not installed ({error}): install Synthgate's extra "
            f"{target.name!r} (deploy/locks, docs/how-to/compile.md)"
        ) from error
    source: Path = options.bundle
    request = Request(
        source=source,
        out=options.out or source.resolve().with_name(f"{source.resolve().name}-{target.name}"),
        target=target,
        precisions=tuple(options.precision),
        capability=options.compute_capability,
        hardware_compatible=options.hardware_compatible,
        calibration=options.calibration,
        tolerances=dict(options.tolerance),
        version=options.version,
    )
    return request, compile_bundle(request, watcher, _judge(options))


def _judge(options: argparse.Namespace) -> Judge | None:
    if options.evaluation is None:
        return None
    return Judge(labelled(options.evaluation, options.per_folder), options.auc_loss_max)


def _compiled_facts(request: "Request", compiled: "Compiled") -> dict[str, object]:
    return {
        "bundle": str(request.source),
        "ok": True,
        "out": str(request.out),
        "version": compiled.manifest.version,
        "runtimes": list(compiled.manifest.runtimes),
        "signed": False,
        "plans": [
            {
                **one.engine.model_dump(mode="json"),
                "bytes": one.bytes,
                "golden_max_difference": one.golden_max_difference,
                "auc_difference": one.auc_difference,
                "built_s": round(one.built_s, 2),
            }
            for one in compiled.made
        ],
    }


def _table(compiled: "Compiled") -> Table:
    table = Table(title="compiled", title_justify="left")
    names = ["plan", "MiB", "built in", "graph against golden, on the CPU"]
    judged = any(one.auc_difference is not None for one in compiled.made)
    for name in [*names, "its AUC, from the model's"] if judged else names:
        table.add_column(name, overflow="fold")
    for one in compiled.made:
        difference = one.golden_max_difference
        cells = [
            one.engine.path,
            f"{one.bytes / 2**20:.1f}",
            f"{one.built_s:.1f} s",
            "not run" if difference is None else f"{difference:.3g}",
        ]
        if judged:
            cells.append("-" if one.auc_difference is None else f"{one.auc_difference:+.4f}")
        table.add_row(*cells)
    return table


def add_quantize(commands: "Commands") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "quantize", help="make a bundle that runs in int8 or bf16 on CPUs too, if that is as good"
    )
    parser.add_argument("directories", nargs=1, type=Path, metavar="BUNDLE", help="an fp32 one")
    parser.add_argument(
        "--precisions", nargs="+", default=["int8"], choices=list(get_args(Lower)), metavar="NAME",
        help=f"of {', '.join(get_args(Lower))} (default: int8)",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="pictures that set the ranges of int8"
    )
    parser.add_argument("--calibration-images", type=positive, default=64, metavar="N")
    parser.add_argument(
        "--evaluation", type=Path, required=True, metavar="DIR", help="real/NAME/*, fake/NAME/*"
    )
    parser.add_argument(
        "--per-folder", type=positive, metavar="N", help="pictures of each folder (all)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new bundle")
    parser.add_argument(
        "--runtimes", nargs="+", default=[REFERENCE], choices=list(INT8_FILES), metavar="NAME",
        help=f"for int8, of {', '.join(INT8_FILES)} (default: {REFERENCE})",
    )  # fmt: skip
    parser.add_argument("--auc-loss-max", type=float, default=AUC_LOSS_MAX, metavar="X")
    parser.add_argument(
        "--version", help="of the new bundle (default: the old one's with +int8, +bf16 or both)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.set_defaults(act=_quantize)


def _quantize(directory: Path, options: argparse.Namespace, out: Console) -> Facts:
    calibration = options.calibration
    asked = Asked(
        precisions=tuple(dict.fromkeys(options.precisions)),
        runtimes=tuple(dict.fromkeys(options.runtimes)),
        calibration=spread(calibration, options.calibration_images) if calibration else (),
        evaluation=labelled(options.evaluation, options.per_folder),
        auc_loss_max=options.auc_loss_max,
        version=options.version,
    )
    made = quantized(directory, options.out, asked)
    if not options.json:
        found = made.verdict.evaluation
        for one in made.verdict.judged:
            out.print(
                f"{options.out}: {one.label}, AUC {one.evaluated.auc:.4f} "
                f"({one.evaluated.auc_difference:+.4f} from fp32) on {found.real} real, {found.fake} "
                f"fake; golden logits differ by at most {one.golden_max_difference:.3g}",
                highlight=False, soft_wrap=True, markup=False,
            )  # fmt: skip
        out.print("It is unsigned: python -m engines sign", highlight=False)
    return _quantized_facts(options.out, made)


def _quantized_facts(directory: Path, made: Made) -> Facts:
    return {
        "bundle": str(directory),
        "ok": True,
        "version": made.manifest.version,
        "calibration_crops": made.calibration_crops,
        "real": made.verdict.evaluation.real,
        "fake": made.verdict.evaluation.fake,
        "auc_fp32": made.verdict.reference_auc,
        "made": [
            {
                "runtime": one.candidate.runtime,
                "precision": one.candidate.precision,
                "auc": one.evaluated.auc,
                "auc_difference": one.evaluated.auc_difference,
                "golden_max_difference": one.golden_max_difference,
                "tolerance": made.manifest.tolerances[str(one.candidate.precision)],
            }
            for one in made.verdict.judged
        ],
    }
