"""``teacher``: trains a small diffusion model on one's own photographs."""

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engines.preprocess import ImageError
from trainer.commands.options import Environment, Parsers, write_json
from trainer.config.teacher_training import TeacherTraining
from trainer.config.toml import read_toml
from trainer.data.sources import Picture, Source, load, scan
from trainer.teachers.ddpm_training import train_teacher
from trainer.training.setup import commit

_LINE_EVERY_S = 30.0


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
    if options.data:
        data = config.data.model_copy(update={"roots": tuple(options.data)})
        config = config.model_copy(update={"data": data})
    torch.set_num_threads(config.threads)
    dataset = scan(config.data, classes=("real",))
    strict = options.strict or config.data.strict
    pictures = [
        _photographs(dataset.splits[name], config, console, strict=strict)
        for name in ("train", "validation")
    ]
    console.print(f"{len(pictures[0])} photographs to learn, {len(pictures[1])} to measure")
    with _Reporter(console) as reporter:
        measured = train_teacher(
            config, (pictures[0], pictures[1]), options.output, reporter, resume=options.resume
        )
    lineage = {"data_digest": dataset.digest, "code_commit": commit(), **measured}
    write_json(options.output / "training.json", lineage)
    console.print(f'{options.output}: teacher.source = "{options.output}" in a configuration')


def _photographs(
    sources: Iterable[Source], config: TeacherTraining, console: Console, *, strict: bool
) -> list[Picture]:
    skipped: list[str] = []

    def on_skip(source: Source, error: ImageError) -> None:
        skipped.append(source.key)
        console.print(f"skipped {source.key}: {error}", highlight=False)

    real = [one for one in sources if one.label == 0]
    found = load(real, strict=strict, region_px=config.data.region_px, on_skip=on_skip)
    if skipped:
        console.print(f"{len(skipped)} files were skipped")
    return found


class _Reporter:
    """A bar on a terminal; a line every half minute where there is none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("teacher"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("teacher", total=None, loss=float("nan"))
        self._start_s = self._told_s = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del kind, error, trace
        self._bar.stop()

    def step(self, step: int, steps: int, loss: float) -> None:
        """After each step."""
        self._bar.update(self._task, completed=step, total=steps, loss=loss)
        now_s = time.monotonic()
        if self._first is None:
            self._first, self._start_s = step, now_s
        elif not self._console.is_terminal and now_s - self._told_s >= _LINE_EVERY_S:
            self._told_s = now_s
            left_s = (now_s - self._start_s) / (step - self._first) * (steps - step)
            self.note(f"step {step}/{steps}  loss {loss:.3f}  {left_s / 60:.0f} min left")

    def note(self, text: str) -> None:
        """A line."""
        self._console.print(text, highlight=False)
