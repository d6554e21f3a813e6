"""``teacher-convert``: writes a pretrained DDPM, published for TensorFlow.js, as a diffusers folder."""

import argparse
from pathlib import Path

from rich.console import Console

from trainer.commands import Environment, Parsers
from trainer.teachers.keras_ddpm import convert


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    del common  # it needs no configuration
    parser = parsers.add_parser(
        "teacher-convert", help="write the TF.js DDPM as a diffusers folder"
    )
    parser.add_argument("source", type=Path, help="the folder with model.json and its shards")
    parser.add_argument("target", type=Path, help="the diffusers folder to write")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Convert."""
    del environment  # no configuration, no variables
    count = convert(options.source, options.target)
    console.print(f"{options.target}: {count} parameters")
