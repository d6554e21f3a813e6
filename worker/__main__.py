"""``python -m worker``: run | score | dry-run | replay | compare | check-config.

Exit status: 0 done; 1 something failed; 2 the command line or the settings are wrong; 3 ``run`` was told
to stop and could not finish all that it had taken; 4 ``run`` lost the device of its engine.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engines.bundle.manifest import BundleError
from worker import __version__
from worker.app import run_worker
from worker.cache import VerdictCache, connect
from worker.compare_cli import add_compare
from worker.dry_run import dry_run
from worker.engine import load_bundle_in_force
from worker.errors import WorkerError
from worker.logs import configure_logging
from worker.replay import ReplayFilter, replay
from worker.score import score_paths
from worker.settings import EngineSettings, Settings
from worker.settings_sources import SettingsError, load_settings

EXIT_FAILED = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(options.config)
        settings = settings.model_copy(update={"engine": _engine(settings.engine, options)})
    except SettingsError as error:
        return _fail(str(error), EXIT_USAGE)
    configure_logging(settings.log)
    command: Callable[[Settings, argparse.Namespace], int] = options.command
    try:
        return command(settings, options)
    except (WorkerError, BundleError) as error:
        return _fail(str(error), EXIT_FAILED)


def _engine(settings: EngineSettings, options: argparse.Namespace) -> EngineSettings:
    """The settings of the engine, with what the command line asks for."""
    if options.bundle and settings.store is not None:
        raise SettingsError(
            "--bundle and engine.store (SYNTHGATE_ENGINE__STORE) are both given: leave one out"
        )
    asked: dict[str, object] = {"bundle": options.bundle} if options.bundle else {}
    if options.allow_unsigned:
        asked["allow_unsigned"] = True
    return settings.model_copy(update=asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m worker",
        description="Image events in from Kafka, verdicts out to Redis and Kafka.",
        epilog="Settings: SYNTHGATE_GROUP__NAME in the environment, or a TOML file; see check-config.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, help="TOML file of settings (SYNTHGATE_CONFIG_FILE)")
    common.add_argument("--bundle", type=Path, help="bundle to load (SYNTHGATE_ENGINE__BUNDLE)")
    common.add_argument(
        "--allow-unsigned",
        action="store_true",
        help="load a bundle that no trusted key signed: for development alone",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[..., int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(command=command)
        return sub

    add("run", _run, "consume events until SIGTERM, then drain")
    score = add("score", _score, "one JSON line an image, without broker or cache")
    score.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="images or directories")
    dry = add("dry-run", _dry_run, "check bundle, cache, broker and topics; publish nothing")
    dry.add_argument(
        "events", nargs="*", type=Path, metavar="EVENT", help="events (JSON) to decide"
    )
    dry.add_argument("--offline", action="store_true", help="leave broker and cache out")
    back = add("replay", _replay, "send dead letters back to the input topic")
    back.add_argument("--stage", help="only those of this stage: event, fetch, decode, infer")
    back.add_argument("--code", help="only those with this error code, such as unreachable")
    back.add_argument("--limit", type=_positive, help="at most this many")
    back.add_argument("--list", action="store_true", dest="only_list", help="list, send nothing")
    add_compare(add)
    add("check-config", _check_config, "print the settings in force, secrets masked")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1: leave it out to have none")
    return int(text)


def _run(settings: Settings, _options: argparse.Namespace) -> int:
    return run_worker(settings)


def _score(settings: Settings, options: argparse.Namespace) -> int:
    failed = score_paths(settings, load_bundle_in_force(settings), options.paths, sys.stdout)
    return EXIT_FAILED if failed else 0


def _dry_run(settings: Settings, options: argparse.Namespace) -> int:
    passed = dry_run(settings, options.events, sys.stdout, offline=options.offline)
    return 0 if passed else EXIT_FAILED


def _replay(settings: Settings, options: argparse.Namespace) -> int:
    cache = VerdictCache(connect(settings.redis), settings.redis)
    wanted = ReplayFilter(options.stage, options.code, options.limit)
    counts = replay(settings.kafka, cache, wanted, time.monotonic, only_list=options.only_list)
    sys.stdout.write(json.dumps(dict(counts)) + "\n")
    if counts["value_omitted"]:
        return _fail(
            f"{counts['value_omitted']} dead letters were too large to carry their value: "
            "read them at the topic, partition and offset in their headers",
            EXIT_FAILED,
        )
    return 0


def _check_config(settings: Settings, _options: argparse.Namespace) -> int:
    sys.stdout.write(settings.model_dump_json(indent=2) + "\n")
    return 0


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
