"""The trainer's command line, and the arguments that its commands share.

A command is a module of ``trainer/commands``, named like it, with ``add(parser)``, which adds its
arguments, and ``run``, which is a ``Command``.

Exit status: 0 done; 1 a failure, whose message says what to do; 2 wrong command line; 130
interrupted; 141 the reader of the output closed the pipe.
"""

import argparse
import ctypes
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.markup import escape

from engines.bundle.manifest import BundleError
from engines.terminal import log_to_stderr
from trainer.config import Config, read_config
from trainer.errors import TrainerError

# The purpose of each command, in the order of use.
COMMANDS: Mapping[str, str] = {
    "data": "check, divide, pack and collect images",
    "teacher-convert": "convert the TF.js DDPM to a diffusers folder",
    "teacher": "train a diffusion model on your own photographs",
    "fakes": "regenerate photographs: content-matched fakes",
    "train": "train a detector",
    "average": "average the weights of several runs",
    "compare": "rank images by several runs and compare them",
    "crops": "compare crop policies by ranking and by time",
    "evaluate": "evaluate a run or a bundle on a split",
    "calibrate": "fit the score calibration and set the thresholds",
    "export": "write a bundle",
    "finish": "calibrate, evaluate, export, verify and sign a run",
    "retrain": "train, export, sign and release, each step once",
    "study": "compare configurations",
}

Environment = Mapping[str, str]
Command = Callable[[argparse.Namespace, Environment, Console], None]
# The type that argparse itself has for it.
Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141  # what a shell reports for a command that SIGPIPE ended

# Parameters of glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_NEVER = -1
_PAD_BYTES = 256 * 2**20


def main(
    arguments: Sequence[str], environment: Environment, prog: str = "python -m trainer"
) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name.
        environment: The process's environment, for ``${NAME}`` in a configuration.
        prog: The program's name in help texts.

    Returns:
        The exit status.
    """
    try:
        options = _parser(arguments, prog).parse_args(arguments)
    except ModuleNotFoundError as error:
        return _failed(
            f"the package {error.name} is not installed: install Synthgate with its extra, from a "
            "checkout: pip install '.[trainer]'",
            EXIT_USAGE,
        )
    log_to_stderr()
    keep_memory()
    run: Command = options.run
    try:
        run(options, environment, Console())
        sys.stdout.flush()
    except (TrainerError, BundleError) as error:
        return _failed(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        return _failed("interrupted; continue with --resume", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Python flushes standard output once more at its end, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    return 0


def _failed(message: str, status: int) -> int:
    # Not wrapped: a path that is broken over two lines cannot be copied, nor found by a search.
    text = f"[bold red]error:[/] {escape(message)}"
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)
    return status


def full_parser(prog: str = "python -m trainer") -> argparse.ArgumentParser:
    """Return the parser of all commands with their arguments."""
    parser, parsers = _empty_parser(prog)
    for name in COMMANDS:
        _register(name, parsers)
    return parser


def _parser(arguments: Sequence[str], prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command that is run; without one, an overview."""
    parser, parsers = _empty_parser(prog)
    # Only what runs is imported: some commands need packages that take seconds to load.
    if arguments and arguments[0] in COMMANDS:
        _register(arguments[0], parsers)
    else:
        for name, text in COMMANDS.items():
            parsers.add_parser(name, help=text)
    return parser


def _empty_parser(prog: str) -> tuple[argparse.ArgumentParser, Parsers]:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train, evaluate and export a detector of AI-generated images.",
        formatter_class=partial(argparse.HelpFormatter, max_help_position=22),
    )
    return parser, parser.add_subparsers(dest="command", metavar="COMMAND", required=True)


def _register(name: str, parsers: Parsers) -> None:
    command = import_module(f"trainer.commands.{name.replace('-', '_')}")
    parser = parsers.add_parser(name, help=COMMANDS[name])
    command.add(parser)
    parser.set_defaults(run=command.run)


def add_common(
    parser: argparse.ArgumentParser,
    output: Path = Path("runs/train"),
    output_help: str = "the run's folder (runs/train)",
) -> None:
    """Add the arguments of every command that works on a run."""
    parser.add_argument("--config", type=Path, required=True, help="a TOML file")
    parser.add_argument("--data", type=Path, nargs="+", help="folders with real/* and fake/*")
    parser.add_argument("--output", type=Path, default=output, help=output_help)
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/cache"), help="cache of noise targets (runs/cache)"
    )
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")


def configured(options: argparse.Namespace, environment: Environment) -> Config:
    """Read the configuration of a command, changed by its arguments; sets torch's threads."""
    import torch  # noqa: PLC0415  takes seconds to load, which --help need not wait for

    config = read_config(options.config, environment)
    changed: dict[str, object] = {}
    if options.data:
        changed["roots"] = tuple(options.data)
    if options.strict:
        changed["strict"] = True
    # Without it torch takes every core there is, and starves whatever else runs here.
    torch.set_num_threads(config.threads)
    return config.model_copy(update={"data": config.data.model_copy(update=changed)})


def keep_memory() -> None:
    """Let this process keep freed memory, instead of asking the kernel for it at every step.

    A step allocates and frees hundreds of MB in large blocks. By default glibc maps each block anew
    and returns it once it is free; the kernel then fills its pages with zeros every time, which
    takes a good part of a step on a CPU. Other C libraries are left alone; results never change.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_MMAP_MAX, 0)  # no block is a mapping of its own
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    mallopt(_M_TOP_PAD, _PAD_BYTES)
