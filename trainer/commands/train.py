"""``train``: writes last.pt, best.pt, progress.jsonl, run.json and tensorboard's files.

``accelerate launch -m trainer train ...`` runs it in several processes, one to a GPU; the first
alone speaks and writes.
"""

import argparse

from rich.console import Console

from trainer.commands.options import Environment, Parsers, configured
from trainer.progress import ProgressBar
from trainer.training.console import ConsoleReporter
from trainer.training.devices import Devices
from trainer.training.loop import train
from trainer.training.setup import build


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = parsers.add_parser("train", parents=[common], help="train a detector")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Train to the end."""
    config = configured(options, environment)
    devices = Devices()
    if not devices.is_main:
        console = Console(quiet=True)
    with ProgressBar(console, "training") as bar:
        reporter = ConsoleReporter(bar)
        # What the first process regenerates and asks of the teacher, the others find cached.
        with devices.main_first():
            material = build(config, options.cache, reporter.note)
        best = train(
            config, material, options.output, reporter, resume=options.resume, devices=devices
        )
    console.print(
        f"best: step {best.step}, validation AUC {best.validation_auc:.4f}; "
        "next: calibrate, evaluate, export"
    )
