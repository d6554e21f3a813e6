"""The trainer's commands: train, evaluate, calibrate, export, teacher-convert.

In: arguments and the environment (for ``${NAME}`` in a configuration). Out: files, and text for a
person. A failure says what to do and exits 1; wrong arguments exit 2.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from engines.manifest import BundleError
from trainer import commands
from trainer.calibrate import CalibrationError
from trainer.checkpoint import CheckpointError
from trainer.config import Config, ConfigError, read_config
from trainer.data import DataError
from trainer.ddpm64 import TeacherError, convert
from trainer.detector import DetectorError
from trainer.export import ExportError
from trainer.losses import LossError
from trainer.regenerate import RegeneratorError

_EXPECTED = (
    BundleError,
    CalibrationError,
    CheckpointError,
    ConfigError,
    DataError,
    DetectorError,
    ExportError,
    LossError,
    RegeneratorError,
    TeacherError,
)
_Command = Callable[[Config, argparse.Namespace, Console], None]


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        if options.command == "teacher-convert":
            count = convert(options.source, options.target)
            console.print(f"{options.target}: {count} parameters")
            return 0
        config = _configured(options, environment)
        # Without it torch takes every core there is, and starves whatever else runs here.
        torch.set_num_threads(config.threads)
        run: _Command = options.run
        run(config, options, console)
    except _EXPECTED as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; go on with --resume")
        return 130
    return 0


def _configured(options: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    config = read_config(options.config, environment)
    changed: dict[str, object] = {}
    if options.data:
        changed["roots"] = tuple(options.data)
    if options.strict:
        changed["strict"] = True
    return config.model_copy(update={"data": config.data.model_copy(update=changed)})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands_of = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, required=True, help="a TOML file")
    common.add_argument("--data", type=Path, nargs="+", help="folders with real/* and fake/*")
    common.add_argument("--output", type=Path, default=Path("runs/train"), help="the run's folder")
    common.add_argument("--cache", type=Path, default=Path("runs/cache"), help="targets, pairs")
    common.add_argument("--strict", action="store_true", help="a corrupt image stops the run")
    train = commands_of.add_parser("train", parents=[common], help="train a detector")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    train.set_defaults(run=commands.train_command)
    evaluate = commands_of.add_parser("evaluate", parents=[common], help="measure on a split")
    evaluate.add_argument("--split", choices=("validation", "test"), default="test")
    evaluate.set_defaults(run=commands.evaluate_command)
    calibrate = commands_of.add_parser(
        "calibrate", parents=[common], help="fit the score, set the thresholds"
    )
    calibrate.set_defaults(run=commands.calibrate_command)
    export = commands_of.add_parser("export", parents=[common], help="write a bundle")
    export.add_argument("--bundle", type=Path, required=True, help="a folder; must not exist")
    export.set_defaults(run=commands.export_command)
    converter = commands_of.add_parser(
        "teacher-convert", help="write the TF.js DDPM as a diffusers folder"
    )
    converter.add_argument("source", type=Path, help="the folder with model.json and its shards")
    converter.add_argument("target", type=Path, help="the diffusers folder to write")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
