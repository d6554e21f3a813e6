"""``study``: runs a grid of trainings and writes report.md and report.json."""

import argparse
import time
from pathlib import Path

from rich.console import Console

from trainer.commands.options import Environment, Parsers, common_parser
from trainer.config import Config, read_config
from trainer.config.study import StudyConfig, read_study
from trainer.progress import ProgressBar
from trainer.study.console import StudyConsole
from trainer.study.cost import known_cost
from trainer.study.grid import StudyError, cells
from trainer.study.processes import ProcessRunner
from trainer.study.report import check_curves, write_report
from trainer.study.results import RESULTS, Results, locked
from trainer.study.run import Plan, execute, plan

_DESCRIPTION = """Run every training of a study that has no result yet, row by row, then write the
report. Killed, it goes on where it was when started again."""


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command; its defaults differ, so it has common arguments of its own."""
    del common
    parser = parsers.add_parser(
        "study", parents=[common_parser()], help="compare detectors", description=_DESCRIPTION
    )
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--until", metavar="ROW", help="the last row to run; the first are first")
    rows.add_argument("--only", metavar="ROW", help="one row alone, whatever is left of the others")
    parser.add_argument("--jobs", type=_at_least_one, default=1, help="cells at a time")
    parser.add_argument(
        "--budget-minutes",
        type=float,
        help="stop after so long; 0 writes the report of what is there",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed cells again")
    parser.set_defaults(run=run, output=Path("runs/study"))


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Run, report, and fail where a cell has failed."""
    until_s = None
    if options.budget_minutes is not None:
        until_s = time.monotonic() + 60 * options.budget_minutes
    study = read_study(options.config, environment)
    base = _base(study, options, environment)
    wanted = cells(study, options.until, options.only)
    with (
        locked(options.output / "study.lock", wait=False),
        ProgressBar(console, "study", line_every_s=60) as bar,
    ):
        watcher = StudyConsole(bar)
        planned = plan(study, base, environment, options.output, options.cache)
        check_curves(study, planned)
        results = Results(options.output)
        _tell_of_others(results, planned, watcher)
        execute(
            planned.of(wanted),
            results,
            ProcessRunner(options.jobs, until_s),
            watcher,
            retry_failed=options.retry_failed,
        )
        records = results.latest(planned.stamps())
        path = write_report(
            study, planned, records, known_cost(base, options.output), options.output
        )
        keys = {cell.key for cell in wanted}
        failed = [one for key, one in records.items() if key in keys and one.status == "failed"]
        left = len(keys - records.keys())
        watcher.note(f"{path}: {len(keys) - left - len(failed)} cells done, {left} left")
    if failed:
        raise StudyError(
            f"{len(failed)} cells failed, the first {failed[0].name}: {failed[0].error}. "
            f"{options.output / RESULTS} has them all; put it right, then use --retry-failed"
        )


def _base(study: StudyConfig, options: argparse.Namespace, environment: Environment) -> Config:
    base = read_config(study.base, environment)
    changed: dict[str, object] = {"strict": options.strict or base.data.strict}
    if options.data:
        changed["roots"] = tuple(options.data)
    return base.model_copy(update={"data": base.data.model_copy(update=changed)})


def _tell_of_others(results: Results, planned: Plan, watcher: StudyConsole) -> None:
    stale = results.stale(planned.stamps())
    if stale:
        watcher.note(f"{stale} results are of other choices or data than now: they do not count")
    if results.unreadable:
        watcher.note(f"{results.unreadable} lines of {RESULTS} are unreadable: passed over")


def _at_least_one(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("must be 1 at least")
    return count
