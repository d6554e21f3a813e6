"""``verify --all-runtimes``: its options, its tables, and where its report goes.

Errors: ``BundleError``, as for every command. Exit status 1 if the report contains a problem.
"""

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines.bundle.files import write_atomically
from engines.bundle.keys import Trust
from engines.bundle.manifest import SIGNATURES_FILE, BundleError, Manifest, write_manifest
from engines.bundle.verify import read_bundle
from engines.parity.evaluation import (
    AUC_LOSS_MAX,
    DecisionChange,
    changes_by_set,
    labelled_pictures,
)
from engines.parity.report import REPORT_FILE, Report, ReportOptions, Variant, verify_runtimes
from engines.parity.speed import Speed, Spread
from engines.runtime.machine import this_machine
from engines.terminal import Facts, columns, positive

_CHANGED: Final = "decisions changed\n(review, block)"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``--all-runtimes`` to ``verify``."""
    group = parser.add_argument_group("every runtime of this machine")
    group.add_argument("--all-runtimes", action="store_true", help="compare and time each runtime")
    add_evaluation_options(group)
    group.add_argument(
        "--repetitions",
        type=positive,
        default=5,
        metavar="N",
        help="timings per batch size (default: %(default)s)",
    )
    group.add_argument(
        "--report", type=Path, metavar="FILE", help="write the report as JSON (one bundle only)"
    )
    group.add_argument(
        "--into-bundle",
        action="store_true",
        help=f"write the report into the bundle as {REPORT_FILE} (unsigned bundles only)",
    )


def add_evaluation_options(
    parser: "argparse._ActionsContainer",  # a parser or a group of one
    *,
    required: bool = False,
) -> None:
    """Add the options for the pictures that precisions and runtimes are compared on."""
    text = "labelled images in real/NAME/* and fake/NAME/*, to measure the AUC"
    parser.add_argument("--evaluation", type=Path, required=required, metavar="DIR", help=text)
    text = "images from each folder (default: all)"
    parser.add_argument("--per-folder", type=positive, metavar="N", help=text)
    text = "refuse a precision that loses more AUC than this (default: %(default)s)"
    parser.add_argument("--auc-loss-max", type=float, default=AUC_LOSS_MAX, metavar="X", help=text)


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Reject options without effect and combinations that contradict each other."""
    needs_all = options.evaluation or options.report or options.into_bundle
    if needs_all and not options.all_runtimes:
        parser.error("--evaluation, --report and --into-bundle go with --all-runtimes")
    if options.report and len(options.directories) != 1:
        parser.error("--report takes one bundle: name one, or use --json")


def verify_all(directory: Path, options: argparse.Namespace, trust: Trust | None) -> Facts:
    """Measure every runtime, print the tables and write the report where the options say."""
    if options.into_bundle:
        _refuse_signed(directory)  # before the work
    machine = this_machine()
    verified = read_bundle(directory, machine, trust)
    pictures = (
        labelled_pictures(options.evaluation, options.per_folder) if options.evaluation else ()
    )
    report_options = ReportOptions(
        threads=options.threads,
        repetitions=options.repetitions,
        pictures=pictures,
        auc_loss_max=options.auc_loss_max,
    )
    report = verify_runtimes(verified, machine, report_options, datetime.now(UTC))
    if not options.json:
        out = Console()
        for table in report_tables(report):
            out.print(table)
    if options.report:
        write_atomically(options.report, _report_json(report))
    if options.into_bundle:
        add_report(directory, verified.manifest, report)
    return {"bundle": str(directory), **report.as_json()}


def add_report(directory: Path, manifest: Manifest, report: Report) -> None:
    """Add the report to the bundle's files, which changes the bundle's identity.

    Raises:
        BundleError: the bundle is signed, or the report contains a problem.
    """
    _refuse_signed(directory)
    if not report.in_order:
        problems = "; ".join(problem for variant in report.variants for problem in variant.problems)
        raise BundleError(f"{directory} gets no {REPORT_FILE}: {problems}")
    write_atomically(directory / REPORT_FILE, _report_json(report))
    write_manifest(directory, manifest)


def _refuse_signed(directory: Path) -> None:
    if (directory / SIGNATURES_FILE).exists():
        raise BundleError(
            f"{directory} is signed, and adding a report would invalidate the signature: add the "
            "report before signing, or write it elsewhere with --report"
        )


def _report_json(report: Report) -> str:
    return json.dumps(report.as_json(), indent=2) + "\n"


def report_tables(report: Report) -> Iterator[Table]:
    """Agreement, speed, the evaluation if there was one, and what was skipped."""
    yield _agreement(report)
    yield _speed(report)
    if report.pictures is not None:
        yield _evaluation(report)
    if report.skipped:
        table = columns("not run here", ("runtime", "why"), wide=("runtime", "why"))
        for runtime in report.skipped:
            table.add_row(escape(runtime.what), escape(runtime.why))
        yield table


def _agreement(report: Report) -> Table:
    subject = report.subject
    table = columns(
        f"{subject.name} {subject.version}: golden outputs",
        ("runtime, file", "difference", "tolerance", _CHANGED, "verdict"),
        wide=("runtime, file", "verdict"),
    )
    for variant in report.variants:
        golden = variant.golden
        problems = escape("; ".join(variant.problems))
        table.add_row(
            _name(variant),
            f"{golden.max_difference:.3g}" if golden else "-",
            f"{golden.tolerance:.3g}" if golden else "-",
            _changes(golden.changed) if golden else "-",
            f"[red]{problems}[/]" if problems else "in order",
        )
    return table


def _speed(report: Report) -> Table:
    threads = report.subject.threads
    table = columns(
        f"speed on {threads} thread{'s' if threads > 1 else ''}: median (lowest to highest)",
        ("runtime, file", "batch", "ms per call", "images/s"),
        wide=("runtime, file",),
    )
    for variant in report.variants:
        if variant.speed:
            table.add_row(_name(variant), *_speed_cells(variant.speed))
    return table


def _speed_cells(speeds: tuple[Speed, ...]) -> tuple[str, str, str]:
    """Batch, latency and throughput, with a line for each batch size."""
    return (
        "\n".join(str(speed.batch) for speed in speeds),
        "\n".join(_spread(speed.latency_ms) for speed in speeds),
        "\n".join(_spread(speed.images_per_s) for speed in speeds),
    )


def _evaluation(report: Report) -> Table:
    pictures = report.pictures
    counts = ""
    if pictures:
        counts = f"{pictures.real} real, {pictures.fake} fake, {pictures.refused} refused"
    table = columns(
        f"evaluation: {counts}",
        ("runtime, file", "AUC", "difference", "max logit diff.", _CHANGED),
        wide=("runtime, file",),
    )
    for variant in report.variants:
        if variant.evaluated is not None:
            table.add_row(
                _name(variant),
                f"{variant.evaluated.auc:.4f}",
                f"{variant.evaluated.auc_difference:+.4f}",
                f"{variant.evaluated.max_difference:.3g}",
                _changes(variant.evaluated.changed),
            )
    return table


def _name(variant: Variant) -> str:
    return f"{variant.runtime} {variant.precision}\n{escape(variant.path)}"


def _changes(changed: tuple[DecisionChange, ...]) -> str:
    """A line for each threshold set, or one line if no decision changed."""
    if not any(change.changed for change in changed):
        return f"none of {changed[0].of}"
    return "\n".join(changes_by_set(changed))


def _spread(spread: Spread) -> str:
    return f"{spread.median:.4g} ({spread.lowest:.4g} to {spread.highest:.4g})"
