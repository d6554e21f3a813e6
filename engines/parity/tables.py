"""A parity report as tables for people."""

from collections.abc import Iterator
from typing import Final

from rich import box
from rich.markup import escape
from rich.table import Table

from engines.parity.changes import by_set
from engines.parity.report import Report, Variant
from engines.parity.speed import Spread

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
