"""``study``: trains and evaluates a grid of configurations and compares them in a report."""

import argparse
from pathlib import Path

from rich.console import Console

from engines.terminal import positive
from trainer.cli import Environment, add_common
from trainer.config import Changes, read_study
from trainer.errors import TrainerError
from trainer.study.cells import plan, run_cells
from trainer.study.report import write_report

_DESCRIPTION = """Train and evaluate every cell of a study that has no result yet, then write
report.md. Start the command again to continue an interrupted study and to retry failed cells."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description = _DESCRIPTION
    add_common(parser, Path("runs/study"), "the study's folder (runs/study)")
    parser.add_argument("--rows", metavar="ROW", nargs="+", default=[], help="run these rows only")
    parser.add_argument("--jobs", type=positive, default=1, help="cells to run at a time (1)")
    parser.add_argument(
        "--report-only", action="store_true", help="run nothing; report what is done"
    )


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Run the cells, write the report, and fail if a cell failed."""
    study = read_study(options.config)
    rows = study.selected(tuple(options.rows))
    data: Changes = {}
    if options.data:
        data["data.roots"] = tuple(map(str, options.data))
    if options.strict:
        data["data.strict"] = True
    cells = plan(study, rows, data, options.output, environment)
    options.output.mkdir(parents=True, exist_ok=True)
    failures = {}
    if not options.report_only:
        failures = run_cells(cells, options.cache, options.jobs, console.print)
    console.print(f"report: {write_report(study, rows, cells, failures, options.output)}")
    if failures:
        name, error = next(iter(failures.items()))
        raise TrainerError(
            f"{len(failures)} of {len(cells)} cells failed, the first is {name}: {error}. "
            "Correct the cause and start the study again"
        )
