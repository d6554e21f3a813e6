"""The demo's live display: verdicts by band, rates, latencies, lag, dead letters.

On a terminal the tables are redrawn in place and fit 80 columns and 24 rows; elsewhere (a pipe, a log) one plain
line is written per second.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.embedded.demo.ledger import Ledger, percentile
from deploy.embedded.demo.workers import Scrape

LINE_EVERY_S = 1.0
REDRAWS_PER_S = 8
BAR_WIDTH = 40
PROGRESS_WIDTH = 30
NAME_WIDTH = 14
BAND_STYLES = {"allow": "green", "review": "yellow", "block": "red"}


@dataclass(frozen=True)
class View:
    """One moment of the stream."""

    ledger: Ledger
    scrapes: Mapping[str, Scrape | None]
    elapsed_s: float

    @property
    def events_per_s(self) -> float:
        """Outcomes per second since the first record was sent."""
        return len(self.ledger.outcomes) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def lag(self) -> int:
        """Records that no worker has received yet."""
        return sum(scrape.lag for scrape in self.scrapes.values() if scrape)


class Display:
    """Shows one view after another, redrawn on a terminal; a context manager."""

    def __init__(self, console: Console) -> None:
        """Draw on this console."""
        self._console = console
        self._live: Live | None = None
        self._next_line_s = 0.0

    def show(self, view: View) -> None:
        """Redraw the tables, or write a line if one is due."""
        if self._live is not None:
            self._live.update(render(view))
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_EVERY_S
            self._console.print(line(view), highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=REDRAWS_PER_S)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def line(view: View) -> str:
    """The view as one line."""
    ledger = view.ledger
    totals = [verdict.total_ms for verdict in ledger.verdicts]
    bands = " ".join(f"{band} {ledger.bands[band]}" for band in BAND_STYLES)
    return (
        f"{view.elapsed_s:5.1f} s  {len(ledger.outcomes)}/{len(ledger.events)} events  {bands}  "
        f"dead letters {len(ledger.dead_letters)}  {view.events_per_s:.0f} events/s  "
        f"p50 {percentile(totals, 50):.0f} ms  p99 {percentile(totals, 99):.0f} ms  "
        f"lag {view.lag}"
    )


def render(view: View) -> RenderableType:
    """The view as tables."""
    space = Text()
    return Group(
        *(_progress(view), space, _bands(view.ledger)),
        *(space, _latency(view), space, _workers(view.scrapes)),
    )


def _progress(view: View) -> RenderableType:
    total, done = len(view.ledger.events), len(view.ledger.outcomes)
    grid = Table.grid(padding=(0, 2))
    rate = f"{done} of {total} events, {view.events_per_s:.0f} events/s, lag {view.lag}"
    grid.add_row(ProgressBar(total=total, completed=done, width=PROGRESS_WIDTH), rate)
    return grid


def _bands(ledger: Ledger) -> Table:
    table = _table("outcome", "events", "")
    for band, style in BAND_STYLES.items():
        table.add_row(Text(band, style=style), str(ledger.bands[band]), _bar(ledger, band, style))
    codes = ", ".join(f"{code} {count}" for code, count in sorted(ledger.codes.items()))
    dead = Text("dead letter", style="magenta")
    table.add_row(dead, str(len(ledger.dead_letters)), Text(codes, style="magenta"))
    return table


def _bar(ledger: Ledger, band: str, style: str) -> Text:
    share = ledger.bands[band] / max(1, len(ledger.events))
    return Text("█" * round(share * BAR_WIDTH), style=style)


def _latency(view: View) -> Table:
    verdicts = view.ledger.verdicts
    table = _table("latency, ms", "p50", "p90", "p99")
    rows = {
        "from the record's timestamp": [verdict.total_ms for verdict in verdicts],
        "of that, in the worker": [verdict.total_ms - verdict.queued_ms for verdict in verdicts],
    }
    for name, values in rows.items():
        table.add_row(name, *(f"{percentile(values, percent):.0f}" for percent in (50, 90, 99)))
    return table


def _workers(scrapes: Mapping[str, Scrape | None]) -> Table:
    table = _table(
        *("worker", "assigned", "lag", "in flight", "queued", "mean batch", "cached", "done"),
        first_width=len("worker-1"),
    )
    for name, scrape in scrapes.items():
        if scrape is None:
            table.add_row(name, *["-"] * 7)
            continue
        numbers = (scrape.assigned, scrape.lag, scrape.in_flight, scrape.queued_for_batch)
        done = sum(scrape.events.values())
        mean = f"{scrape.mean_batch:.1f}"
        table.add_row(name, *map(str, numbers), mean, str(scrape.cache_hits), str(done))
    return table


def _table(first: str, *rest: str, first_width: int = NAME_WIDTH) -> Table:
    """A table with few lines: rich cuts off what does not fit a terminal of 24 rows."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(first, min_width=first_width)
    for name in rest:
        table.add_column(name, justify="right" if name else "left", overflow="fold")
    return table
