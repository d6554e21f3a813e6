"""``teacher``: trains a small diffusion model on photographs."""

import argparse
from pathlib import Path

import torch
from rich.console import Console

from trainer.cli import Environment
from trainer.config import TeacherTraining, read_toml
from trainer.data.dataset import pictures_of, scan
from trainer.progress import ProgressBar
from trainer.teachers.training import train_teacher
from trainer.training.checkpoint import commit, write_json


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--config", type=Path, required=True, help="a TOML file")
    parser.add_argument("--data", type=Path, nargs="+", help="folders with real/*")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/teacher"), help="the diffusers folder to write"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument("--strict", action="store_true", help="stop at a corrupt photograph")


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Train to the end."""
    config = read_toml(TeacherTraining, options.config, environment)
    changed: dict[str, object] = {"strict": options.strict or config.data.strict}
    if options.data:
        changed["roots"] = tuple(options.data)
    config = config.model_copy(update={"data": config.data.model_copy(update=changed)})
    torch.set_num_threads(config.threads)
    dataset = scan(config.data, classes=("real",))
    with ProgressBar(console, "teacher") as bar:
        train, validation = (
            pictures_of(
                [source for source in dataset.splits[name] if source.label == 0],
                config.data,
                bar.note,
                config.data.region_px,
            )
            for name in ("train", "validation")
        )
        bar.note(f"{len(train)} photographs to learn, {len(validation)} to measure")

        def on_step(step: int, steps: int, loss: float) -> None:
            bar.show(step, steps, f"step {step}/{steps}  loss {loss:.3f}")

        measured = train_teacher(
            config, (train, validation), options.output, on_step, resume=options.resume
        )
    lineage = {"data_digest": dataset.digest, "code_commit": commit(), **measured}
    write_json(options.output / "training.json", lineage)
    console.print("  ".join(f"{name} {value:.4g}" for name, value in measured.items()))
    console.print(f'set teacher.source = "{options.output}" in a configuration')
