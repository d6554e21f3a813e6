"""The arguments that commands share, and the configuration that they name.

In: the command line and the environment. Out: a ``Config``, with torch told how many threads it
may use. Errors: ``ConfigError``.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from rich.console import Console

from trainer.config import Config, read_config

Environment = Mapping[str, str]
Command = Callable[[argparse.Namespace, Environment, Console], None]
# How argparse itself types it.
Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


def common_parser() -> argparse.ArgumentParser:
    """The arguments of every command that works on a run."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, required=True, help="a TOML file")
    common.add_argument("--data", type=Path, nargs="+", help="folders with real/* and fake/*")
    common.add_argument("--output", type=Path, default=Path("runs/train"), help="the run's folder")
    common.add_argument("--cache", type=Path, default=Path("runs/cache"), help="targets, pairs")
    common.add_argument(
        "--strict", action="store_true", help="stop at a corrupt image or a near duplicate"
    )
    return common


def configured(options: argparse.Namespace, environment: Environment) -> Config:
    """The configuration of a command, with what its arguments change."""
    config = read_config(options.config, environment)
    changed: dict[str, object] = {}
    if options.data:
        changed["roots"] = tuple(options.data)
    if options.strict:
        changed["strict"] = True
    # Without it torch takes every core there is, and starves whatever else runs here.
    torch.set_num_threads(config.threads)
    return config.model_copy(update={"data": config.data.model_copy(update=changed)})
