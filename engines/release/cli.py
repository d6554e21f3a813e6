"""``python -m engines release promote | rollback | list | fetch``.

Exit status: 0 if it was done, 1 if it was refused or failed (the reason on standard error).
"""

import argparse
import getpass
import json
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines.bundle.keys import Trust, read_trust
from engines.bundle.manifest import BundleError
from engines.release.channels import Asked, fetch, promote, rollback
from engines.release.gate import Margins
from engines.release.measure import Timing
from engines.release.records import CHANNELS, Change, history, parse_channel
from engines.release.store import Store, open_store
from engines.terminal import positive


def add_gate_options(parser: argparse.ArgumentParser) -> None:
    """Add them to the parser of a command."""
    group = parser.add_argument_group("the gate: what is still not worse than the version in place")
    margins, timing = Margins(), Timing()
    group.add_argument(
        "--auc-drop-max", type=float, default=margins.auc_drop_max, metavar="X",
        help="of a generator's AUC (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--fpr-rise-max", type=float, default=margins.fpr_rise_max, metavar="X",
        help="of the false-positive rate at a threshold (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--latency-ratio-max", type=_ratio, default=margins.latency_ratio_max, metavar="X",
        help="an image's latency as a multiple of the other's (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--latency-images", type=positive, default=timing.images, metavar="N",
        help="whole images in a batch that is timed (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--skip-latency", action="store_true",
        help="compare no latency, and say so in the history: for a machine unlike the workers'",
    )  # fmt: skip


def margins_of(options: argparse.Namespace) -> Margins:
    """How much worse is still not worse."""
    return Margins(options.auc_drop_max, options.fpr_rise_max, options.latency_ratio_max)


def timing_of(options: argparse.Namespace) -> Timing:
    """How latency is compared."""
    return Timing(options.latency_images, options.skip_latency)


def _ratio(text: str) -> float:
    """A multiple of at least 1: less would refuse a candidate that is as fast."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not found >= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return found


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  it has no public name

_Act = Callable[[argparse.Namespace, Store], list[Change]]


def add_release(commands: "Commands") -> None:
    """Add ``release`` and its commands to the parser."""
    release = commands.add_parser("release", help="promote, roll back, list and fetch versions")
    inner = release.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, act: _Act, text: str) -> argparse.ArgumentParser:
        parser = inner.add_parser(name, help=text, description=text)
        parser.add_argument("--store", required=True, help="a directory, or s3://BUCKET/PREFIX")
        parser.add_argument("--json", action="store_true", help="one line of JSON a change")
        parser.set_defaults(run=lambda options: run_release(act, options))
        return parser

    up = add("promote", _promote, "take a channel to a bundle, if the gate lets it")
    up.add_argument("channel", help=", ".join(CHANNELS))
    up.add_argument("bundle", type=Path, metavar="DIR")
    up.add_argument("--force", action="store_true", help="in spite of findings; needs --reason")
    add_gate_options(up)
    back = add("rollback", _rollback, "take a channel back to an earlier version")
    back.add_argument("channel", help=", ".join(CHANNELS))
    back.add_argument("--to", metavar="VERSION", help="(default: the one before)")
    for parser in (up, back):
        parser.add_argument("--reason", default="", help="stands in the history")
        parser.add_argument("--who", default=None, help="(default: this user on this machine)")
    getter = add("fetch", _fetch, "write what a channel is at into a new directory, verified")
    getter.add_argument("channel", help=", ".join(CHANNELS))
    getter.add_argument("--to", type=Path, required=True, metavar="DIR")
    for parser in (up, back, getter):
        parser.add_argument("--trusted-keys", nargs="+", type=Path, default=[], metavar="PEM")
        parser.add_argument("--allow-unsigned", action="store_true", help="for development alone")
    listing = add("list", _list, "the changes of a channel, or of all, oldest first")
    listing.add_argument("channel", nargs="?", help=", ".join(CHANNELS))


def run_release(act: _Act, options: argparse.Namespace) -> int:
    """Run one command; returns the exit status."""
    out, refused = Console(), Console(stderr=True)
    try:
        changes = act(options, open_store(options.store))
    except BundleError as error:
        if options.json:
            sys.stdout.write(json.dumps({"ok": False, "error": str(error)}) + "\n")
        else:
            refused.print(
                f"[bold red]refused[/] {escape(str(error))}", highlight=False, soft_wrap=True
            )
        return 1
    if options.json:
        for change in changes:
            sys.stdout.write(change.model_dump_json() + "\n")
    else:
        out.print(_table(changes))
        for change in changes:
            if change.measured is not None:
                told = f"{change.channel} {change.serial}: {change.measured}"
                out.print(told, highlight=False, soft_wrap=True, markup=False)
    return 0


def _promote(options: argparse.Namespace, store: Store) -> list[Change]:
    channel = parse_channel(options.channel)
    asked, trust = _asked(options), _trust(options)
    margins, timing = margins_of(options), timing_of(options)
    return [promote(store, channel, options.bundle, asked, trust, margins, timing)]


def _rollback(options: argparse.Namespace, store: Store) -> list[Change]:
    channel = parse_channel(options.channel)
    return [rollback(store, channel, _asked(options), _trust(options), options.to)]


def _fetch(options: argparse.Namespace, store: Store) -> list[Change]:
    return [fetch(store, parse_channel(options.channel), options.to, _trust(options))]


def _list(options: argparse.Namespace, store: Store) -> list[Change]:
    channels = [parse_channel(options.channel)] if options.channel else CHANNELS
    return [change for channel in channels for change in history(store, channel)]


def _asked(options: argparse.Namespace) -> Asked:
    who = options.who or f"{getpass.getuser()}@{socket.gethostname()}"
    return Asked(who, datetime.now(UTC), options.reason, getattr(options, "force", False))


def _trust(options: argparse.Namespace) -> Trust:
    if options.allow_unsigned:
        Console(stderr=True).print(
            "[bold red]UNSIGNED BUNDLES ALLOWED[/]: whoever can write the bundle can run code "
            "where it is loaded; name --trusted-keys",
            soft_wrap=True,
        )
    return read_trust(options.trusted_keys, allow_unsigned=options.allow_unsigned)


def _table(changes: list[Change]) -> Table:
    table = Table(box=None)
    for name in ("channel", "#", "when (UTC)", "who", "what", "from", "to", "signed by", "why"):
        table.add_column(name, overflow="fold")
    for one in changes:
        why = "; ".join(filter(None, (one.reason, "FORCED" if one.forced else "", *one.findings)))
        table.add_row(
            one.channel,
            str(one.serial),
            f"{one.at:%Y-%m-%d %H:%M:%S}",
            escape(one.who),
            one.action,
            str(one.before or "-"),
            f"{one.after} ({one.after.manifest_sha256[:12]})",
            one.signed_by or "UNSIGNED",
            escape(why),
        )
    return table
