"""The commands of the trainer, and the arguments that they share.

A command is a module of this package, named like it, with ``add(parser)``, which adds its arguments, and
``run``, which is a ``Command``.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from rich.console import Console

from trainer.config import Config, read_config

# What each is for, in the order in which they are used.
COMMANDS: Mapping[str, str] = {
    "data": "check, divide, pack and collect images",
    "teacher-convert": "convert the TF.js DDPM to a diffusers folder",
    "teacher": "train a diffusion model on your own photographs",
    "fakes": "regenerate photographs: content-matched fakes",
    "train": "train a detector",
    "average": "average the weights of several runs",
    "compare": "rank several runs or bundles on a split",
    "crops": "compare ways to crop, by ranking and by time",
    "evaluate": "measure a run or a bundle on a split",
    "calibrate": "fit the score, set the thresholds",
    "export": "write a bundle",
    "finish": "from a trained run to a verified bundle",
    "retrain": "train, export, sign and release, each step once",
    "study": "compare configurations",
}

Environment = Mapping[str, str]
Command = Callable[[argparse.Namespace, Environment, Console], None]
# The type that argparse itself has for it.
Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


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
        "--cache", type=Path, default=Path("runs/cache"), help="for noise targets (runs/cache)"
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
