"""What a retraining is asked to make beside fp32: int8 and bf16 for CPUs, plans for GPUs.

In: the command's options. Out: arguments of ``python -m engines quantize`` and ``compile``, and what they
depend on. Errors: ``RetrainError``, where a precision could not be judged: that is said before a
training is paid for.
"""

import argparse
from pathlib import Path
from typing import get_args

from engines.bundle.manifest import Precision
from engines.compile.quantize import INT8_FILES, Lower, refuse_machine
from engines.runtime.machine import this_machine
from trainer.retraining.ledger import RetrainError, digest_of_directory


def add_precision_options(parser: argparse.ArgumentParser) -> None:
    """Register them."""
    group = parser.add_argument_group(
        "beside fp32", "options of python -m engines quantize and compile; none by default"
    )
    add = group.add_argument
    add("--quantize", nargs="+", default=[], choices=get_args(Lower), metavar="PRECISION",
        help=f"for CPUs: {', '.join(get_args(Lower))}")  # fmt: skip
    add("--quantize-runtimes", nargs="+", default=["onnxruntime-cpu"], choices=list(INT8_FILES),
        metavar="RUNTIME", help="that get int8 (default: onnxruntime-cpu)")  # fmt: skip
    add("--compile", nargs="+", default=[], metavar="TARGET",
        help="plans for GPUs: tensorrt, tensorrt-rtx")  # fmt: skip
    add("--compile-precisions", nargs="+", default=["fp32"], choices=get_args(Precision),
        metavar="PRECISION", help="a plan for each, the preferred one first (default: fp32)")  # fmt: skip
    add("--calibration", type=Path, metavar="DIR", help="pictures that set the ranges of int8")
    add("--evaluation", type=Path, metavar="DIR",
        help="real/NAME/*, fake/NAME/*: pictures that judge each precision beside fp32")  # fmt: skip


def refuse_unjudged(options: argparse.Namespace) -> None:
    """What is missing must not cost a training first."""
    lower = set(options.quantize)
    if options.compile:
        lower |= set(options.compile_precisions) - {"fp32"}
    if lower and options.evaluation is None:
        raise RetrainError(
            f"{' and '.join(sorted(lower))} must be judged beside fp32: name --evaluation DIR with "
            "labelled pictures"
        )
    if "int8" in lower and options.calibration is None:
        raise RetrainError("int8 needs ranges: name --calibration DIR with pictures as uploaded")
    for name in ("calibration", "evaluation"):
        folder: Path | None = getattr(options, name)
        if folder is not None and not folder.is_dir():
            raise RetrainError(f"{folder} is no directory: name one with pictures (--{name})")
    refuse_machine(options.quantize, options.quantize_runtimes, this_machine())


def quantize_arguments(options: argparse.Namespace, version: str) -> list[str]:
    """Of ``engines quantize``, but for the bundles."""
    runtimes = ["--runtimes", *options.quantize_runtimes]
    return ["--precisions", *options.quantize, *runtimes, "--version", version, *_pictures(options)]


def compile_arguments(options: argparse.Namespace) -> list[str]:
    """Of ``engines compile``, but for the bundles and the target."""
    return ["--precision", *options.compile_precisions, *_pictures(options)]


def judged_by(options: argparse.Namespace) -> dict[str, str]:
    """What a precision's step depends on beside its own options: the pictures."""
    folders = {"calibration": options.calibration, "evaluation": options.evaluation}
    return {name: digest_of_directory(at) for name, at in folders.items() if at is not None}


def _pictures(options: argparse.Namespace) -> list[str]:
    folders = (("--calibration", options.calibration), ("--evaluation", options.evaluation))
    return [text for name, at in folders if at is not None for text in (name, str(at))]
