"""The gate's options, which every command that promotes has.

In: the command line. Out: ``Margins``, ``Timing``. Errors: argparse's, exit status 2.
"""

import argparse

from engines.arguments import positive
from engines.release.gate import Margins
from engines.release.measure import Timing


def add_gate_options(parser: argparse.ArgumentParser) -> None:
    """Add them to the parser of a command."""
    group = parser.add_argument_group("the gate: what is still not worse than the version in place")
    margins, timing = Margins(), Timing()
    group.add_argument(
        "--auc-drop-max", type=float, default=margins.auc_drop_max, metavar="X",
        help="of a generator's AUC (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--fpr-rise-max", type=float, default=margins.fpr_rise_max, metavar="X",
        help="of the false-positive rate at a threshold (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--latency-ratio-max", type=_ratio, default=margins.latency_ratio_max, metavar="X",
        help="an image's latency as a multiple of the other's (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--latency-images", type=positive, default=timing.images, metavar="N",
        help="whole images in a batch that is timed (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--skip-latency", action="store_true",
        help="compare no latency, and say so in the history: for a machine unlike the workers'",
    )  # fmt: skip


def margins_of(options: argparse.Namespace) -> Margins:
    """How much worse is still not worse."""
    return Margins(options.auc_drop_max, options.fpr_rise_max, options.latency_ratio_max)


def timing_of(options: argparse.Namespace) -> Timing:
    """How latency is compared."""
    return Timing(options.latency_images, options.skip_latency)


def _ratio(text: str) -> float:
    """A multiple of at least 1: less would refuse a candidate that is as fast."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not found >= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return found
