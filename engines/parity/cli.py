"""``python -m engines verify --all-runtimes``: options, tables, and where the report goes.

Errors: ``BundleError``, as for every command; problems that the report tells of make exit status 1.
"""

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines.bundle.keys import Trust
from engines.bundle.manifest import SIGNATURES_FILE, BundleError, Manifest, write_manifest
from engines.bundle.verify import read_bundle
from engines.parity.evaluation import AUC_LOSS_MAX, by_set, labelled
from engines.parity.report import REPORT_FILE, How, Report, Variant, verify_runtimes
from engines.parity.speed import Spread
from engines.runtime.machine import this_machine
from engines.terminal import Facts, positive


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``--all-runtimes`` to ``verify``."""
    group = parser.add_argument_group("every runtime that this machine has")
    group.add_argument("--all-runtimes", action="store_true", help="compare and time each")
    group.add_argument("--evaluation", type=Path, metavar="DIR", help="real/NAME/*, fake/NAME/*")
    group.add_argument(
        "--per-folder", type=positive, metavar="N", help="pictures of each folder (all)"
    )
    group.add_argument("--auc-loss-max", type=float, default=AUC_LOSS_MAX, metavar="X")
    group.add_argument(
        "--repetitions", type=positive, default=5, help="timings (default: %(default)s)"
    )
    group.add_argument("--report", type=Path, metavar="FILE", help="write it as JSON (one bundle)")
    group.add_argument(
        "--into-bundle",
        action="store_true",
        help=f"write it into the bundle as {REPORT_FILE}; not into a signed one",
    )


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse, as a wrong command line, options that do nothing or contradict each other."""
    needs_all = options.evaluation or options.report or options.into_bundle
    if needs_all and not options.all_runtimes:
        parser.error("--evaluation, --report and --into-bundle go with --all-runtimes")
    if options.report and len(options.directories) != 1:
        parser.error("--report takes one bundle: name one, or use --json")


def verify_all(
    directory: Path, options: argparse.Namespace, trust: Trust | None, out: Console
) -> Facts:
    """Measure every runtime; print tables, write the report where it is asked for."""
    if options.into_bundle:
        _refuse_signed(directory)  # before the work
    machine = this_machine()
    verified = read_bundle(directory, machine, trust)
    pictures = labelled(options.evaluation, options.per_folder) if options.evaluation else ()
    how = How(
        threads=options.threads,
        repetitions=options.repetitions,
        pictures=pictures,
        auc_loss_max=options.auc_loss_max,
    )
    report = verify_runtimes(verified, machine, how, datetime.now(UTC))
    if not options.json:
        for table in report_tables(report):
            out.print(table)
    if options.report:
        options.report.write_text(_text(report), encoding="utf-8")
    if options.into_bundle:
        put_report(directory, verified.manifest, report)
    return {"bundle": str(directory), **report.as_json()}


def put_report(directory: Path, manifest: Manifest, report: Report) -> None:
    """Make the report a file of the bundle, which gives the bundle another identity.

    Raises:
        BundleError: the bundle is signed, or the report tells of a problem.
    """
    _refuse_signed(directory)
    if not report.in_order:
        problems = "; ".join(problem for one in report.variants for problem in one.problems)
        raise BundleError(f"{directory} gets no {REPORT_FILE}: {problems}")
    (directory / REPORT_FILE).write_text(_text(report), encoding="utf-8")
    write_manifest(directory, manifest)


def _refuse_signed(directory: Path) -> None:
    if (directory / SIGNATURES_FILE).exists():
        raise BundleError(
            f"{directory} is signed, and a report in it would make it another bundle: write the "
            "report before signing, or elsewhere by --report"
        )


def _text(report: Report) -> str:
    return json.dumps(report.as_json(), indent=2) + "\n"


_CHANGED: Final = "decisions changed\n(review, block)"


def report_tables(report: Report) -> Iterator[Table]:
    """Agreement, then speed, then the evaluation if there was one, then what was not run."""
    yield _agreement(report)
    yield _speed(report)
    if report.pictures is not None:
        yield _evaluation(report)
    if report.passed_over:
        table = _columns("not run here", "why")
        for one in report.passed_over:
            table.add_row(escape(one.what), escape(one.why))
        yield table


def _agreement(report: Report) -> Table:
    subject = report.subject
    table = _columns(
        f"{subject.name} {subject.version}: golden outputs",
        "runtime", "file", "difference", "tolerance", _CHANGED, "verdict",
    )  # fmt: skip
    for one in report.variants:
        golden = one.golden
        table.add_row(
            *_names(one),
            f"{golden.max_difference:.3g}" if golden else "-",
            f"{golden.tolerance:.3g}" if golden else "-",
            "\n".join(by_set(golden.changed)) if golden else "-",
            "[red]" + escape("; ".join(one.problems)) + "[/]" if one.problems else "in order",
        )
    return table


def _speed(report: Report) -> Table:
    threads = report.subject.threads
    table = _columns(
        f"speed on {threads} thread{'s' if threads > 1 else ''}: median (least to most)",
        "runtime", "file", "batch", "ms a call", "images/s",
    )  # fmt: skip
    for one in report.variants:
        for speed in one.speed:
            table.add_row(
                *_names(one),
                str(speed.batch),
                _spread(speed.latency_ms),
                _spread(speed.images_per_s),
            )
    return table


def _evaluation(report: Report) -> Table:
    found = report.pictures
    counts = f"{found.real} real, {found.fake} fake, {found.refused} refused" if found else ""
    table = _columns(
        f"evaluation: {counts}", "runtime", "file", "AUC", "difference", "of a logit", _CHANGED
    )
    for one in report.variants:
        if one.evaluated is not None:
            table.add_row(
                *_names(one),
                f"{one.evaluated.auc:.4f}",
                f"{one.evaluated.auc_difference:+.4f}",
                f"{one.evaluated.max_difference:.3g}",
                "\n".join(by_set(one.evaluated.changed)),
            )
    return table


def _names(variant: Variant) -> tuple[str, str]:
    return f"{variant.runtime}\n{variant.precision}", escape(variant.path)


def _spread(found: Spread) -> str:
    return f"{found.median:.4g} ({found.lowest:.4g} to {found.highest:.4g})"


def _columns(title: str, *names: str) -> Table:
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE)
    for name in names:
        table.add_column(name, overflow="fold")
    return table
