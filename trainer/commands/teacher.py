"""``teacher``: trains a small diffusion model on one's own photographs."""

import argparse
from pathlib import Path

import torch
from rich.console import Console

from trainer.commands import Environment, Parsers
from trainer.config.teacher_training import TeacherTraining
from trainer.config.toml import read_toml
from trainer.data.dataset import scan
from trainer.files import write_json
from trainer.progress import ProgressBar
from trainer.teachers.ddpm_training import train_teacher
from trainer.training.setup import commit, pictures_of


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    del common  # its configuration is one of its own
    parser = parsers.add_parser("teacher", help="train a diffusion model on one's own photographs")
    parser.add_argument("--config", type=Path, required=True, help="a TOML file")
    parser.add_argument("--data", type=Path, nargs="+", help="folders with real/*")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/teacher"), help="the diffusers folder to write"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--strict", action="store_true", help="a corrupt photograph stops the run")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Train to the end."""
    config = read_toml(TeacherTraining, options.config, environment)
    changed: dict[str, object] = {"strict": options.strict or config.data.strict}
    if options.data:
        changed["roots"] = tuple(options.data)
    config = config.model_copy(update={"data": config.data.model_copy(update=changed)})
    torch.set_num_threads(config.threads)
    dataset = scan(config.data, classes=("real",))
    pictures = [
        pictures_of(
            [one for one in dataset.splits[name] if one.label == 0],
            config.data,
            lambda text: console.print(text, markup=False, highlight=False),
            config.data.region_px,
        )
        for name in ("train", "validation")
    ]
    console.print(f"{len(pictures[0])} photographs to learn, {len(pictures[1])} to measure")
    with ProgressBar(console, "teacher") as bar:
        measured = train_teacher(
            config,
            (pictures[0], pictures[1]),
            options.output,
            _Reporter(bar),
            resume=options.resume,
        )
    lineage = {"data_digest": dataset.digest, "code_commit": commit(), **measured}
    write_json(options.output / "training.json", lineage)
    console.print(f'{options.output}: teacher.source = "{options.output}" in a configuration')


class _Reporter:
    """Tells the bar what a step of the diffusion model's training means."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar

    def step(self, step: int, steps: int, loss: float) -> None:
        """After each step."""
        self._bar.show(step, steps, f"step {step}/{steps}  loss {loss:.3f}")

    def note(self, text: str) -> None:
        """A line."""
        self._bar.note(text)
