"""``python -m engines quantize BUNDLE --calibration DIR --evaluation DIR --out DIR``.

Exit status: 0 if the bundle was made, 1 if it was refused (the reason on standard error).
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from engines.arguments import positive
from engines.parity.pictures import labelled, spread
from engines.parity.report import AUC_LOSS_MAX
from engines.quantization.make import INT8_FILES, REFERENCE, Asked, Made, quantized
from engines.render import Facts

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  it has no public name


def add_quantize(commands: "Commands") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "quantize", help="make a bundle that has an int8 graph for the CPU too, if it is as good"
    )
    parser.add_argument("directories", nargs=1, type=Path, metavar="BUNDLE", help="an fp32 one")
    parser.add_argument("--calibration", type=Path, required=True, metavar="DIR")
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
        help=f"of {', '.join(INT8_FILES)} (default: {REFERENCE})",
    )  # fmt: skip
    parser.add_argument("--auc-loss-max", type=float, default=AUC_LOSS_MAX, metavar="X")
    parser.add_argument("--version", help="of the new bundle (default: the old one's with +int8)")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.set_defaults(act=_quantize)


def _quantize(directory: Path, options: argparse.Namespace, out: Console) -> Facts:
    asked = Asked(
        runtimes=tuple(dict.fromkeys(options.runtimes)),
        calibration=spread(options.calibration, options.calibration_images),
        evaluation=labelled(options.evaluation, options.per_folder),
        auc_loss_max=options.auc_loss_max,
        version=options.version,
    )
    made = quantized(directory, options.out, asked)
    facts = _facts(options.out, made)
    if not options.json:
        for name, one in made.results.items():
            out.print(
                f"{options.out}: int8 on {name}, AUC {one.auc:.4f} ({one.auc_difference:+.4f} from "
                f"fp32) on {made.evaluation.real} real, {made.evaluation.fake} fake; golden logits "
                f"differ by at most {made.golden_max_difference:.3g}",
                highlight=False, soft_wrap=True, markup=False,
            )  # fmt: skip
        out.print("It is unsigned: python -m engines sign", highlight=False)
    return facts


def _facts(directory: Path, made: Made) -> Facts:
    return {
        "bundle": str(directory),
        "ok": True,
        "version": made.manifest.version,
        "calibration_crops": made.calibration_crops,
        "real": made.evaluation.real,
        "fake": made.evaluation.fake,
        "auc_fp32": made.reference_auc,
        "auc_int8": {name: one.auc for name, one in made.results.items()},
        "auc_difference": {name: one.auc_difference for name, one in made.results.items()},
        "golden_max_difference": made.golden_max_difference,
        "tolerance": made.manifest.tolerances["int8"],
    }
