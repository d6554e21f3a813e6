"""``python -m engines verify --all-runtimes``: options, tables, and where the report goes.

Errors: ``BundleError``, as for every command; problems that the report tells of make exit status 1.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from engines.arguments import positive
from engines.keys import Trust
from engines.manifest import SIGNATURES_FILE, BundleError, Manifest, write_manifest
from engines.parity.pictures import AUC_LOSS_MAX, labelled
from engines.parity.report import REPORT_FILE, How, Report, verify_runtimes
from engines.parity.tables import report_tables
from engines.render import Facts
from engines.runtime.machine import this_machine
from engines.verify import read_bundle


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
