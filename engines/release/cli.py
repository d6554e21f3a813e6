"""The commands ``release promote | rollback | list | fetch``, and the gate's options.

Exit status: 0 if it was done, 1 if it was refused or failed (the reason on standard error).
"""

import argparse
import getpass
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from engines.bundle.keys import Trust, read_trust
from engines.bundle.manifest import BundleError
from engines.release.channels import PromotionRequest, fetch, promote, rollback
from engines.release.gate import Margins
from engines.release.measure import Timing
from engines.release.records import CHANNELS, Change, history, parse_channel
from engines.release.store import Store, open_store
from engines.terminal import positive, report_refusal, say

if TYPE_CHECKING:
    from engines.terminal import Commands

_Act = Callable[[argparse.Namespace, Store], list[Change]]

_ONE_LINE_COLUMNS: Final = 120  # a terminal of this width shows a change in one line


def add_release(commands: "Commands") -> None:
    """Add ``release`` and its commands to the parser."""
    release = commands.add_parser("release", help="promote, roll back, list and fetch versions")
    inner = release.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, act: _Act, text: str) -> argparse.ArgumentParser:
        parser = inner.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parser.add_argument("--store", required=True, help="a directory, or s3://BUCKET/PREFIX")
        parser.add_argument("--json", action="store_true", help="print one line of JSON per change")
        parser.set_defaults(run=partial(_run_release, act, show=_print_details))
        return parser

    up = add("promote", _promote, "move a channel to a bundle, if the gate allows it")
    up.add_argument("channel", help=", ".join(CHANNELS))
    up.add_argument("bundle", type=Path, metavar="DIR", help="a signed bundle")
    up.add_argument(
        "--force",
        action="store_true",
        help="promote in spite of the gate's findings; needs --reason",
    )
    add_gate_options(up)
    back = add("rollback", _rollback, "move a channel back to an earlier version")
    back.add_argument("channel", help=", ".join(CHANNELS))
    back.add_argument(
        "--to", metavar="VERSION", help="the version to return to (default: the previous one)"
    )
    for parser in (up, back):
        parser.add_argument("--reason", default="", help="recorded in the channel's history")
        parser.add_argument(
            "--who", default=None, help="who makes the change (default: this user on this machine)"
        )
    getter = add("fetch", _fetch, "verify a channel's version and write it to a new directory")
    getter.add_argument("channel", help=", ".join(CHANNELS))
    getter.add_argument("--to", type=Path, required=True, metavar="DIR", help="the new directory")
    for parser in (up, back, getter):
        text = "public keys to trust (files, or directories of *.pem)"
        parser.add_argument(
            "--trusted-keys", nargs="+", type=Path, default=[], metavar="PEM", help=text
        )
        text = "accept a bundle that no trusted key signed; for development only"
        parser.add_argument("--allow-unsigned", action="store_true", help=text)
    text = "list the changes of one channel or all, oldest first (--json for every detail)"
    listing = add("list", _list, text)
    listing.add_argument("channel", nargs="?", help=", ".join(CHANNELS))
    listing.set_defaults(run=partial(_run_release, _list, show=_print_list))


def add_gate_options(parser: argparse.ArgumentParser) -> None:
    """Add the gate's options; ``trainer retrain`` has them too."""
    text = "the gate: how much worse than the current version a candidate may be"
    group = parser.add_argument_group(text)
    margins, timing = Margins(), Timing()
    text = "maximum drop of a generator's AUC (default: %(default)s)"
    group.add_argument(
        "--auc-drop-max", type=float, default=margins.auc_drop_max, metavar="X", help=text
    )
    text = "maximum rise of the false-positive rate at a threshold (default: %(default)s)"
    group.add_argument(
        "--fpr-rise-max", type=float, default=margins.fpr_rise_max, metavar="X", help=text
    )
    text = "maximum latency per image, relative to the current version (default: %(default)s)"
    group.add_argument(
        "--latency-ratio-max",
        type=_ratio,
        default=margins.latency_ratio_max,
        metavar="X",
        help=text,
    )
    text = "images in a timed batch (default: %(default)s)"
    group.add_argument(
        "--latency-images", type=positive, default=timing.images, metavar="N", help=text
    )
    text = "do not compare latency, and record that; for a machine that differs from the workers'"
    group.add_argument("--skip-latency", action="store_true", help=text)


def margins_of(options: argparse.Namespace) -> Margins:
    """The margins that the options ask for."""
    return Margins(options.auc_drop_max, options.fpr_rise_max, options.latency_ratio_max)


def timing_of(options: argparse.Namespace) -> Timing:
    """How the options want latency to be compared."""
    return Timing(options.latency_images, options.skip_latency)


def _ratio(text: str) -> float:
    """A number of at least 1: a lower one would refuse a candidate of the same speed."""
    try:
        ratio = float(text)
    except ValueError:
        ratio = 0.0
    if not ratio >= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return ratio


def _run_release(
    act: _Act, options: argparse.Namespace, show: Callable[[Sequence[Change]], None]
) -> int:
    try:
        changes = act(options, open_store(options.store))
    except BundleError as error:
        report_refusal(error, {} if options.json else None)
        return 1
    if options.json:
        for change in changes:
            say(change.model_dump_json())
    else:
        show(changes)
    return 0


def _promote(options: argparse.Namespace, store: Store) -> list[Change]:
    channel, request = parse_channel(options.channel), _request(options)
    trust, margins, timing = _trust(options), margins_of(options), timing_of(options)
    return [promote(store, channel, options.bundle, request, trust, margins, timing)]


def _rollback(options: argparse.Namespace, store: Store) -> list[Change]:
    channel = parse_channel(options.channel)
    return [rollback(store, channel, _request(options), _trust(options), options.to)]


def _fetch(options: argparse.Namespace, store: Store) -> list[Change]:
    return [fetch(store, parse_channel(options.channel), options.to, _trust(options))]


def _list(options: argparse.Namespace, store: Store) -> list[Change]:
    channels = [parse_channel(options.channel)] if options.channel else CHANNELS
    return [change for channel in channels for change in history(store, channel)]


def _request(options: argparse.Namespace) -> PromotionRequest:
    who = options.who or f"{getpass.getuser()}@{socket.gethostname()}"
    force = getattr(options, "force", False)
    return PromotionRequest(who, datetime.now(UTC), options.reason, force)


def _trust(options: argparse.Namespace) -> Trust:
    if options.allow_unsigned:
        Console(stderr=True).print(
            "[bold red]UNSIGNED BUNDLES ALLOWED[/]: whoever can write the bundle can run code "
            "where it is loaded; use --trusted-keys",
            soft_wrap=True,
        )
    return read_trust(options.trusted_keys, allow_unsigned=options.allow_unsigned)


def _print_details(changes: Sequence[Change]) -> None:
    for change in changes:
        for line in _details(change):
            say(line)


def _details(change: Change) -> Iterator[str]:
    """Everything that a change records, one line per subject."""
    yield (
        f"{change.channel} {change.serial}: {change.action} {change.after} "
        f"({change.after.manifest_sha256[:12]}), from {change.before or 'nothing'}"
    )
    yield f"  {_when(change)} UTC, {change.who}, {_signed(change)}"
    if change.reason:
        yield f"  reason: {change.reason}"
    if change.forced:
        yield f"  FORCED in spite of: {'; '.join(change.findings)}"
    if change.measured is not None:
        yield f"  {change.measured.latency}"
        yield f"  {change.measured.parity}"


def _print_list(changes: Sequence[Change]) -> None:
    """One line per change; two in a narrow terminal. A pipe or a file gets whole lines."""
    console = Console()
    width = console.width if console.is_terminal else None
    for line in list_lines(changes, width):
        say(line, console)


def list_lines(changes: Sequence[Change], width: int | None) -> Iterator[str]:
    """The lines of ``release list``.

    Args:
        changes: what to list.
        width: the columns of the terminal, to which lines are cut; None for lines of any length.
    """
    versions = [f"{change.after} ({change.after.manifest_sha256[:12]})" for change in changes]
    longest = max(map(len, versions), default=0)
    for change, version in zip(changes, versions, strict=True):
        head = f"{change.channel:<6} {change.serial:>3}  {_when(change)}  {change.action:<8}  "
        measured = str(change.measured) if change.measured else ""
        notes = (change.reason, _forced(change), measured)
        tail = "; ".join(filter(None, (_origin(change), _signed(change), change.who, *notes)))
        if width is None or width >= _ONE_LINE_COLUMNS:
            yield _cut(f"{head}{version:<{longest}}  {tail}", width)
        else:
            yield _cut(head + version, width)
            yield _cut(f"{'':12}{tail}", width)


def _origin(change: Change) -> str:
    """``from 0.1.0``; with the name if it was another bundle's."""
    if change.before is None:
        return ""
    same_name = change.before.name == change.after.name
    return f"from {change.before.version if same_name else change.before}"


def _when(change: Change) -> str:
    return f"{change.at:%Y-%m-%d %H:%M:%S}"


def _signed(change: Change) -> str:
    return f"signed by {change.signed_by}" if change.signed_by else "UNSIGNED"


def _forced(change: Change) -> str:
    return f"FORCED: {'; '.join(change.findings)}" if change.forced else ""


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"
