"""``fakes``: regenerates photographs by every family of a configuration."""

import argparse
from pathlib import Path

import torch
from rich.console import Console

from trainer.cli import Environment
from trainer.config import FakesConfig, read_toml
from trainer.data.pairs import PAIRS
from trainer.fakes.make import make_fakes


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--config", type=Path, required=True, help="a TOML file")
    parser.add_argument("--data", type=Path, nargs="+", help="folders with real/*")
    parser.add_argument("--output", type=Path, default=Path("runs/fakes"), help="the set's folder")
    parser.add_argument("--strict", action="store_true", help="stop at a corrupt photograph")


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Make the files of the set that are missing."""
    config = read_toml(FakesConfig, options.config, environment)
    if options.data:
        photographs = config.photographs.model_copy(update={"roots": tuple(options.data)})
        config = config.model_copy(update={"photographs": photographs})
    torch.set_num_threads(config.threads)

    def notify(text: str) -> None:
        # Paths and lists contain brackets, which are not markup.
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    count = make_fakes(config, options.output, strict=options.strict, notify=notify)
    notify(
        f"{options.output / PAIRS}: {count} fakes of {len(config.families)} families; "
        f'next: data.pairs = ["{options.output}"] in a training configuration'
    )
