"""``python -m engines quantize BUNDLE --calibration DIR --evaluation DIR --out DIR``.

Exit status: 0 if the bundle was made, 1 if it was refused (the reason on standard error).
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console

from engines.arguments import positive
from engines.parity.pictures import AUC_LOSS_MAX, labelled, spread
from engines.quantization.make import Made, quantized
from engines.quantization.request import INT8_FILES, REFERENCE, Asked, Lower
from engines.render import Facts

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  it has no public name


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
    return _facts(options.out, made)


def _facts(directory: Path, made: Made) -> Facts:
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
