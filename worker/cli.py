"""The worker's command line: ``run``, ``score``, ``dry-run``, ``replay``, ``compare``, ``check-config``.

Exit status: 0 done; 1 something failed; 2 wrong command line or settings; 3 ``run`` was stopped and could not finish
all events in flight; 4 ``run`` lost the device of its engine; 141 the reader of the output closed the pipe.
Each command imports its own modules, so that ``--help`` and ``check-config`` load neither engine nor clients.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from worker import __version__
from worker.errors import WorkerError
from worker.logs import configure_logging
from worker.settings import EngineSettings, LogSettings, Settings, SettingsError, load_settings

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PIPE_CLOSED = 141  # what a shell reports for a command that SIGPIPE ended

Command = Callable[[Settings, argparse.Namespace], int]


def main(
    arguments: Sequence[str], environment: Mapping[str, str], prog: str = "python -m worker"
) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name.
        environment: The process's environment variables.
        prog: The program's name in help texts.

    Returns:
        The exit status.
    """
    try:
        try:
            return _run_command(_parser(prog).parse_args(arguments), environment)
        finally:  # also after --help, which leaves parse_args by SystemExit
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more at its end, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED


def _run_command(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    try:
        settings = load_settings(environment, options.config)
        settings = settings.model_copy(
            update={"engine": _engine_settings(settings.engine, options)}
        )
    except SettingsError as error:
        return _fail(str(error), EXIT_USAGE)
    command: Command = options.command
    if command is _run or not sys.stderr.isatty():
        configure_logging(settings.log, environment)
    else:
        _configure_terminal_logging(settings.log, environment)
    if command is _check_config:
        return command(settings, options)
    from engines.bundle.manifest import BundleError

    try:
        return command(settings, options)
    except (WorkerError, BundleError) as error:
        return _fail(str(error), EXIT_FAILED)


def _configure_terminal_logging(settings: LogSettings, environment: Mapping[str, str]) -> None:
    """On a terminal the log mixes with a command's results: warnings only, unless the settings differ."""
    quiet = LogSettings(level="warning", format="console").model_dump()
    changes = {name: quiet[name] for name in quiet.keys() - settings.model_fields_set}
    configure_logging(settings.model_copy(update=changes), environment)
    if "level" in changes:
        # kafka-python logs every attempt to connect; the command reports the error once.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)


def _engine_settings(settings: EngineSettings, options: argparse.Namespace) -> EngineSettings:
    """The engine's settings, changed by the options of the command line."""
    if options.bundle and settings.store is not None:
        raise SettingsError(
            "--bundle and engine.store (SYNTHGATE_ENGINE__STORE) are both given: remove one"
        )
    changes: dict[str, object] = {"bundle": options.bundle} if options.bundle else {}
    if options.allow_unsigned:
        changes["allow_unsigned"] = True
    return settings.model_copy(update=changes)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Scores images from a Kafka topic and writes verdicts to Redis and Kafka.",
        epilog="Settings come from environment variables (SYNTHGATE_GROUP__NAME) or a TOML file; "
        "check-config prints them.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    common = _common_options()

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        description = text[0].upper() + text[1:] + "."
        subparser = commands.add_parser(name, help=text, description=description, parents=[common])
        subparser.set_defaults(command=command)
        return subparser

    add("run", _run, "process events until SIGTERM, then drain")
    score = add("score", _score, "score image files; needs no broker or cache")
    score.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="images or directories")
    dry = add("dry-run", _dry_run, "check bundle, cache, broker and topics without publishing")
    dry.add_argument("events", nargs="*", type=Path, metavar="EVENT", help="JSON events to decide")
    dry.add_argument("--offline", action="store_true", help="do not contact broker or cache")
    _add_replay_options(add("replay", _replay, "send dead letters back to the input topic"))
    _add_compare_options(
        add(
            "compare",
            _compare,
            "compare the verdicts of a shadow or a canary",
        )
    )
    add("check-config", _check_config, "print the settings in force, with secrets masked")
    return parser


def _common_options() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file of settings (SYNTHGATE_CONFIG_FILE)"
    )
    common.add_argument(
        "--bundle", type=Path, metavar="DIR", help="bundle to load (SYNTHGATE_ENGINE__BUNDLE)"
    )
    common.add_argument(
        "--allow-unsigned",
        action="store_true",
        help="load a bundle that no trusted key signed; for development only",
    )
    return common


def _add_replay_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stage", help="only dead letters of this stage: event, fetch, decode or infer"
    )
    parser.add_argument("--code", help="only dead letters with this error code: unreachable, ...")
    parser.add_argument("--limit", type=_positive, metavar="N", help="at most N dead letters")
    parser.add_argument("--list", action="store_true", dest="only_list", help="list, send nothing")


def _add_compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE",
        help="files of verdicts, one JSON object per line (default: read the topics)",
    )  # fmt: skip
    parser.add_argument(
        "--mode", choices=("shadow", "canary"), default="shadow",
        help="the side to compare with the deciding engine (default: shadow)",
    )  # fmt: skip
    parser.add_argument("--version-only", metavar="VERSION", help="only this version of that side")
    parser.add_argument(
        "--examples", type=int, default=10, metavar="N",
        help="show the N largest differences (default: 10)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a positive integer (omit for no limit)")
    return int(text)


def _run(settings: Settings, _options: argparse.Namespace) -> int:
    from worker.app import run_worker

    return run_worker(settings)


def _score(settings: Settings, options: argparse.Namespace) -> int:
    from worker.engine import load_bundle_in_force
    from worker.score import score_paths

    failed = score_paths(settings, load_bundle_in_force(settings), options.paths, sys.stdout)
    return EXIT_FAILED if failed else 0


def _dry_run(settings: Settings, options: argparse.Namespace) -> int:
    from worker.dry_run import dry_run

    passed = dry_run(settings, options.events, sys.stdout, offline=options.offline)
    return 0 if passed else EXIT_FAILED


def _replay(settings: Settings, options: argparse.Namespace) -> int:
    from worker.replay import ReplayFilter, run_replay

    wanted = ReplayFilter(options.stage, options.code, options.limit)
    run_replay(settings, wanted, sys.stdout, only_list=options.only_list)
    return 0


def _compare(settings: Settings, options: argparse.Namespace) -> int:
    from worker.compare import run_compare

    run_compare(settings, options, sys.stdout)
    return 0


def _check_config(settings: Settings, _options: argparse.Namespace) -> int:
    sys.stdout.write(settings.model_dump_json(indent=2) + "\n")
    return 0


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return status
