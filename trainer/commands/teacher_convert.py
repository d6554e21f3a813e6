"""``teacher-convert``: writes a pretrained DDPM, published for TensorFlow.js, as a diffusers folder."""

import argparse
from pathlib import Path

from rich.console import Console

from trainer.cli import Environment
from trainer.teachers.keras_ddpm import convert


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("source", type=Path, help="the folder with model.json and its shards")
    parser.add_argument("target", type=Path, help="the diffusers folder to write")


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Convert."""
    del environment  # no configuration, no variables
    count = convert(options.source, options.target)
    console.print(f"{options.target}: {count} parameters")
