"""``python -m deploy.embedded.demo``: the command behind ``make demo``.

Exit status: 0 every event is accounted for; 1 an event is missing, or something failed; 2 wrong command line;
128 + n ended by signal n.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from kafka.errors import KafkaError
from rich.console import Console

from deploy.embedded.demo.pictures import DemoError
from deploy.embedded.demo.report import show
from deploy.embedded.demo.run import BROKERS, DEFAULT_EVENTS, Options, run_demo
from deploy.embedded.services import ServiceError
from engines.bundle.manifest import BundleError

ROOT = Path(__file__).resolve().parents[3]
EVENTS_MIN, EVENTS_MAX = 20, 2000
WORKERS_MAX = 16
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal ended the demo. A BaseException, so that no handler of errors swallows it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = _options(arguments)
    console = Console()
    signals: list[int] = []

    def end(signum: int, _frame: FrameType | None) -> None:
        # The clean-up takes a moment and must not be interrupted.
        for other in ENDINGS:
            signal.signal(other, signal.SIG_IGN)
        signals.append(signum)
        raise Ended(signum)

    for signum in ENDINGS:
        signal.signal(signum, end)
    try:
        report = run_demo(options, console)
    except Ended:
        return _ended(signals[0], console)
    except (DemoError, ServiceError, BundleError, KafkaError, OSError, TimeoutError) as error:
        if signals:  # a connection that the signal closed raised this error
            return _ended(signals[0], console)
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    if signals:  # a library swallowed the signal's exception
        return _ended(signals[0], console)
    show(report, console, options.output / "report.json")
    return 0 if report.reconciled else 1


def _ended(signum: int, console: Console) -> int:
    name = signal.Signals(signum).name
    console.print(f"Ended by {name}; broker, cache and workers have stopped.", highlight=False)
    return 128 + signum


def _options(arguments: Sequence[str] | None) -> Options:
    parsed = _parser().parse_args(arguments)
    return Options(
        bundle=parsed.bundle,
        output=parsed.output.resolve(),
        images=parsed.images.resolve() if parsed.images else None,
        broker=parsed.broker,
        events=parsed.events,
        workers=parsed.workers,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.embedded.demo",
        description="Runs a broker, a cache and workers on this machine, sends image events, and "
        "checks that each event gets exactly one outcome.",
    )

    def directory(name: str, default: Path | None, text: str) -> None:
        parser.add_argument(name, type=Path, metavar="DIR", default=default, help=text)

    def count(name: str, default: int, low: int, high: int, text: str) -> None:
        kind, text = _between(low, high), f"{text}; default: {default}"
        parser.add_argument(name, type=kind, metavar="N", default=default, help=text)

    directory(
        "--images", None, "directory of images to send; its folders real/ and fake/ are labels"
    )
    parser.add_argument(
        "--broker",
        choices=sorted(BROKERS),
        default="tansu",
        help="default: tansu, which needs no Java",
    )
    count("--events", DEFAULT_EVENTS, EVENTS_MIN, EVENTS_MAX, "events, or images of --images")
    count("--workers", 2, 1, WORKERS_MAX, "worker processes")
    directory("--bundle", ROOT / "engines" / "bundles" / "reference", "default: the reference one")
    directory("--output", ROOT / "build" / "demo", "for report and logs; default: build/demo")
    return parser


def _between(low: int, high: int) -> Callable[[str], int]:
    def bounded(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be between {low} and {high}")
        return value

    return bounded


if __name__ == "__main__":
    sys.exit(main())
