"""What an operator wants to see, live: verdicts by band, rates, latencies, lag, dead letters.

In: the ledger and the workers' metrics. Out: rich renderables; on a terminal they are redrawn in
place, elsewhere (a pipe, a log) a plain line comes every second.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

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
BAND_STYLES = {"allow": "green", "review": "yellow", "block": "red"}


@dataclass(frozen=True)
class View:
    """One moment of the stream."""

    ledger: Ledger
    scrapes: Mapping[str, Scrape | None]
    elapsed_s: float

    @property
    def events_per_s(self) -> float:
        """Outcomes a second, since the first record was sent."""
        return len(self.ledger.outcomes) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def lag(self) -> int:
        """Records that no worker has taken yet."""
        return sum(each.lag for each in self.scrapes.values() if each)


class Display:
    """Shows a view after another, in the way that the output can take; a context manager."""

    def __init__(self, console: Console) -> None:
        """Draw on this console."""
        self._console = console
        self._live: Live | None = None
        self._next_line_s = 0.0

    def show(self, view: View) -> None:
        """Draw it, or write a line if one is due."""
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
    """The moment in one line."""
    ledger = view.ledger
    totals = [each.total_ms for each in ledger.verdicts]
    bands = " ".join(f"{band} {ledger.bands[band]}" for band in BAND_STYLES)
    return (
        f"{view.elapsed_s:5.1f} s  {len(ledger.outcomes)}/{len(ledger.events)} events  {bands}  "
        f"dead letters {len(ledger.dead_letters)}  {view.events_per_s:.0f} events/s  "
        f"p50 {percentile(totals, 50):.0f} ms  p99 {percentile(totals, 99):.0f} ms  "
        f"lag {view.lag}"
    )


def render(view: View) -> RenderableType:
    """The moment as tables."""
    return Group(_progress(view), _bands(view.ledger), _latency(view), _workers(view.scrapes))


def _progress(view: View) -> RenderableType:
    total, done = len(view.ledger.events), len(view.ledger.outcomes)
    grid = Table.grid(padding=(0, 2))
    rate = f"{done} of {total} events, {view.events_per_s:.0f} events/s, lag {view.lag}"
    grid.add_row(ProgressBar(total=total, completed=done, width=BAR_WIDTH), rate)
    return grid


def _bands(ledger: Ledger) -> Table:
    table = Table(title="What became of the events", title_justify="left", min_width=72)
    table.add_column("outcome")
    table.add_column("events", justify="right")
    table.add_column("")
    for band, style in BAND_STYLES.items():
        table.add_row(Text(band, style=style), str(ledger.bands[band]), _bar(ledger, band, style))
    for code, count in sorted(ledger.codes.items()):
        table.add_row(Text(f"dead letter: {code}", style="magenta"), str(count), "")
    return table


def _bar(ledger: Ledger, band: str, style: str) -> Text:
    share = ledger.bands[band] / max(1, len(ledger.events))
    return Text("█" * round(share * BAR_WIDTH), style=style)


def _latency(view: View) -> Table:
    verdicts = view.ledger.verdicts
    table = Table(title="Latency of verdicts, ms", title_justify="left", min_width=72)
    for name in ("", "p50", "p90", "p99"):
        table.add_column(name, justify="right" if name else "left")
    rows = {
        "from the record's timestamp": [each.total_ms for each in verdicts],
        "of that, in the worker": [each.total_ms - each.queued_ms for each in verdicts],
    }
    for name, values in rows.items():
        table.add_row(name, *(f"{percentile(values, percent):.0f}" for percent in (50, 90, 99)))
    return table


def _workers(scrapes: Mapping[str, Scrape | None]) -> Table:
    table = Table(title="Workers", title_justify="left", min_width=72)
    heads = ("", "partitions", "lag", "in flight", "to batch", "mean batch", "cache hits", "done")
    for name in heads:
        table.add_column(name, justify="right" if name else "left")
    for name, each in scrapes.items():
        if each is None:
            table.add_row(name, *["-"] * 7)
            continue
        done = sum(each.events.values())
        numbers = (each.assigned, each.lag, each.in_flight, each.queued_for_batch)
        table.add_row(
            name,
            *map(str, numbers),
            f"{each.mean_batch:.1f}",
            str(each.cache_hits),
            str(done),
        )
    return table
