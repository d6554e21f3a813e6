"""``python -m deploy.embedded.demo``: what ``make demo`` runs.

Exit status: 0 every event is accounted for; 1 one is not, or something failed; 2 the command line
is wrong; 128 + n ended by signal n.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from kafka.errors import KafkaError
from rich.console import Console

from deploy.embedded.demo import report as reckoning
from deploy.embedded.demo.pictures import DemoError
from deploy.embedded.demo.run import BROKERS, DEFAULT_EVENTS, Options, run_demo
from deploy.embedded.services import ServiceError
from engines.bundle.manifest import BundleError

ROOT = Path(__file__).resolve().parents[3]
EVENTS_MIN, EVENTS_MAX = 20, 2000
WORKERS_MAX = 16
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal asked the demo to end; not an error that any handler should swallow."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = _options(arguments)
    console = Console()
    asked: list[int] = []

    def end(signum: int, _frame: FrameType | None) -> None:
        # Ending takes a moment and must not be ended itself.
        for other in ENDINGS:
            signal.signal(other, signal.SIG_IGN)
        asked.append(signum)
        raise Ended(signum)

    for signum in ENDINGS:
        signal.signal(signum, end)
    try:
        report = run_demo(options, console)
    except Ended:
        return _ended(asked[0], console)
    except (DemoError, ServiceError, BundleError, KafkaError, OSError, TimeoutError) as error:
        if asked:  # a connection that was closed in mid-sentence complained of it
            return _ended(asked[0], console)
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    if asked:  # a library swallowed the signal's exception
        return _ended(asked[0], console)
    reckoning.show(report, console, options.output / "report.json")
    return 0 if report.reconciled else 1


def _ended(signum: int, console: Console) -> int:
    name = signal.Signals(signum).name
    console.print(f"Ended by {name}; broker, cache and workers are gone.", highlight=False)
    return 128 + signum


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.embedded.demo",
        description="A broker, a cache and workers on this machine; image events in, verdicts out.",
    )
    parser.add_argument(
        "--images", type=Path, help="a folder of images to use; real/ and fake/ in it are labels"
    )
    parser.add_argument("--broker", choices=sorted(BROKERS), default="tansu")
    parser.add_argument(
        "--events",
        type=_between(EVENTS_MIN, EVENTS_MAX),
        default=DEFAULT_EVENTS,
        help=f"how many events (default {DEFAULT_EVENTS}; of a folder: at most so many images)",
    )
    parser.add_argument("--workers", type=_between(1, WORKERS_MAX), default=2)
    parser.add_argument("--bundle", type=Path, default=ROOT / "engines" / "bundles" / "reference")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "demo")
    found = parser.parse_args(arguments)
    return Options(
        bundle=found.bundle,
        output=found.output.resolve(),
        images=found.images.resolve() if found.images else None,
        broker=found.broker,
        events=found.events,
        workers=found.workers,
    )


def _between(low: int, high: int) -> Callable[[str], int]:
    def bounded(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"choose {low} to {high}")
        return value

    return bounded


if __name__ == "__main__":
    sys.exit(main())
