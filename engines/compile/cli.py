"""The commands ``compile`` (plans for GPUs) and ``quantize`` (int8 and bf16 on CPUs).

Exit status: 0 if the new bundle was written, 1 if it was refused (the reason on standard error), 2
for a wrong command line.
"""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console
from rich.table import Table

from engines.bundle.manifest import BundleError, Precision
from engines.compile.plan import COMPATIBLE_FROM, ConsoleProgress
from engines.compile.quantize import (
    INT8_FILES,
    REFERENCE,
    LowerPrecision,
    QuantizedBundle,
    QuantizeRequest,
    quantize_bundle,
)
from engines.parity.cli import add_evaluation_options
from engines.parity.evaluation import AucCheck, labelled_pictures, sample_files
from engines.runtime.tensorrt_api import TARGETS
from engines.terminal import Facts, columns, positive, report_refusal, say, write_json

if TYPE_CHECKING:
    # Building needs packages that a worker does not have.
    from engines.compile.build import CompiledBundle, CompileRequest
    from engines.terminal import Commands


def add_compile(commands: "Commands") -> None:
    """Add ``compile`` to the parser."""
    text = "build plans for GPUs from a bundle's model, into a new bundle"
    parser = commands.add_parser("compile", help=text, description=f"{text[0].upper()}{text[1:]}.")
    add = parser.add_argument
    add("bundle", type=Path, metavar="DIR", help="the bundle, which does not change")
    text = "the library that builds the plans; the same library must run them"
    add("--target", required=True, choices=sorted(TARGETS), help=text)
    add("--out", type=Path, metavar="DIR", help="the new bundle (default: DIR-TARGET)")
    precisions = get_args(Precision)
    text = f"any of {', '.join(precisions)}: one plan for each, the preferred one first (default: fp32)"
    add("--precision", nargs="+", default=["fp32"], choices=precisions, metavar="NAME", help=text)
    text = "compute capability of the GPU (default: this machine's; tensorrt-rtx: as --hardware-compatible)"
    add("--compute-capability", metavar="X.Y", help=text)
    text = f"build for every GPU from {COMPATIBLE_FROM} on; plans may be slower"
    add("--hardware-compatible", action="store_true", help=text)
    add(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="calibration images for int8, as they are uploaded",
    )
    add_evaluation_options(parser)
    text = "maximum difference of a logit, in place of the manifest's"
    add("--tolerance", nargs="+", default=[], type=_tolerance, metavar="PRECISION=X", help=text)
    add("--version", metavar="SEMVER", help="version of the new bundle (default: the same)")
    add("--json", action="store_true", help="print one line of JSON")
    parser.set_defaults(run=_run_compile)


def _tolerance(text: str) -> tuple[str, float]:
    precision, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if precision not in get_args(Precision) or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not PRECISION=X, for instance fp16=0.05")
    return precision, value


def _run_compile(options: argparse.Namespace) -> int:
    try:
        request, compiled = _compile(options, ConsoleProgress(Console(stderr=True)))
    except BundleError as error:
        report_refusal(error, {"bundle": str(options.bundle)} if options.json else None)
        return 1
    if options.json:
        write_json(_compiled_facts(request, compiled))
        return 0
    Console().print(_compiled_table(compiled))
    say(f"{request.out} is not signed: `python -m engines sign {request.out} --key KEY`")
    return 0


def _compile(
    options: argparse.Namespace, progress: ConsoleProgress
) -> "tuple[CompileRequest, CompiledBundle]":
    target = TARGETS[options.target]
    check = None
    if options.evaluation is not None:
        pictures = labelled_pictures(options.evaluation, options.per_folder)
        check = AucCheck(pictures, options.auc_loss_max)
    try:
        # Imported here, so that verifying and signing need none of these packages.
        from engines.compile.build import CompileRequest, compile_bundle  # noqa: PLC0415
    except ImportError as error:
        raise BundleError(
            f"compiling needs a package that is not installed ({error}): install the packages of "
            f"the extra {target.name!r} (docs/how-to/compile.md)"
        ) from error
    source: Path = options.bundle
    request = CompileRequest(
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
    return request, compile_bundle(request, progress, check)


def _compiled_facts(request: "CompileRequest", compiled: "CompiledBundle") -> Facts:
    return {
        "bundle": str(request.source),
        "ok": True,
        "out": str(request.out),
        "version": compiled.manifest.version,
        "runtimes": list(compiled.manifest.runtimes),
        "signed": False,
        "plans": [
            {
                **plan.engine.model_dump(mode="json"),
                "bytes": plan.bytes,
                "golden_max_difference": plan.golden_max_difference,
                "auc_difference": plan.auc_difference,
                "built_s": round(plan.built_s, 2),
            }
            for plan in compiled.plans
        ],
    }


def _compiled_table(compiled: "CompiledBundle") -> Table:
    evaluated = any(plan.auc_difference is not None for plan in compiled.plans)
    names = ["plan", "MiB", "built in", "golden diff."]
    table = columns(
        "compiled (differences measured on the CPU)",
        [*names, "AUC diff."] if evaluated else names,
        wide=("plan",),
    )
    for plan in compiled.plans:
        difference = plan.golden_max_difference
        cells = [
            plan.engine.path,
            f"{plan.bytes / 2**20:.1f}",
            f"{plan.built_s:.1f} s",
            "not run" if difference is None else f"{difference:.3g}",
        ]
        if evaluated:
            cells.append("-" if plan.auc_difference is None else f"{plan.auc_difference:+.4f}")
        table.add_row(*cells)
    return table


def add_quantize(commands: "Commands") -> argparse.ArgumentParser:
    """Add ``quantize`` to the parser."""
    text = "add int8 or bf16 for CPUs to a new bundle, if it is as accurate as fp32"
    parser = commands.add_parser("quantize", help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument(
        "directories",
        nargs=1,
        type=Path,
        metavar="BUNDLE",
        help="an fp32 bundle, which does not change",
    )
    precisions = list(get_args(LowerPrecision))
    text = f"precisions to add, any of {', '.join(precisions)} (default: int8)"
    parser.add_argument(
        "--precisions", nargs="+", default=["int8"], choices=precisions, metavar="NAME", help=text
    )
    text = "calibration images for int8"
    parser.add_argument("--calibration", type=Path, metavar="DIR", help=text)
    text = "number of calibration images (default: %(default)s)"
    parser.add_argument("--calibration-images", type=positive, default=64, metavar="N", help=text)
    add_evaluation_options(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new bundle")
    text = f"runtimes of the int8 graph, any of {', '.join(INT8_FILES)} (default: {REFERENCE})"
    parser.add_argument(
        "--runtimes",
        nargs="+",
        default=[REFERENCE],
        choices=list(INT8_FILES),
        metavar="NAME",
        help=text,
    )
    text = "version of the new bundle (default: the old one's with +int8, +bf16 or both)"
    parser.add_argument("--version", help=text)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    return parser


def quantize(directory: Path, options: argparse.Namespace) -> Facts:
    """Run ``quantize`` on one bundle."""
    calibration = options.calibration
    request = QuantizeRequest(
        precisions=tuple(dict.fromkeys(options.precisions)),
        runtimes=tuple(dict.fromkeys(options.runtimes)),
        calibration=sample_files(calibration, options.calibration_images) if calibration else (),
        evaluation=labelled_pictures(options.evaluation, options.per_folder),
        auc_loss_max=options.auc_loss_max,
        version=options.version,
    )
    bundle = quantize_bundle(directory, options.out, request)
    if not options.json:
        evaluation = bundle.comparison.evaluation
        for result in bundle.comparison.results:
            say(
                f"{options.out}: {result.label}, AUC {result.evaluation.auc:.4f} "
                f"({result.evaluation.auc_difference:+.4f} from fp32) on {evaluation.real} real, "
                f"{evaluation.fake} fake; golden logits differ by at most "
                f"{result.golden_max_difference:.3g}"
            )
        say(f"{options.out} is not signed: `python -m engines sign {options.out} --key KEY`")
    return _quantized_facts(options.out, bundle)


def _quantized_facts(directory: Path, bundle: QuantizedBundle) -> Facts:
    comparison = bundle.comparison
    return {
        "bundle": str(directory),
        "ok": True,
        "version": bundle.manifest.version,
        "calibration_crops": bundle.calibration_crops,
        "real": comparison.evaluation.real,
        "fake": comparison.evaluation.fake,
        "auc_fp32": comparison.reference_auc,
        "made": [
            {
                "runtime": result.candidate.runtime,
                "precision": result.candidate.precision,
                "auc": result.evaluation.auc,
                "auc_difference": result.evaluation.auc_difference,
                "golden_max_difference": result.golden_max_difference,
                "tolerance": bundle.manifest.tolerances[str(result.candidate.precision)],
            }
            for result in comparison.results
        ],
    }
