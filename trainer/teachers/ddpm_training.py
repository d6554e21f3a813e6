"""Trains a small pixel-space DDPM (Ho et al. 2020) on photographs.

In: a configuration and its pictures. Out: a diffusers folder with the averaged weights, and beside it
``last.pt`` and ``progress.jsonl``. Errors: ``TeacherError``; ``CheckpointError`` for a run of another
configuration.

The loss is the mean squared error of epsilon. Every draw is a function of (seed, step), so a run that
was resumed ends with the weights of one that was not interrupted.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol

import diffusers
import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from trainer.config.teacher_training import NetworkConfig, TeacherTraining
from trainer.data.dataset import Picture
from trainer.teachers.crops import drawn, large_enough, spread
from trainer.teachers.errors import TeacherError
from trainer.teachers.noise_error import noise_error
from trainer.training.checkpoint import save

LAST = "last.pt"


class Reporter(Protocol):
    """Who is told how the run goes."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """After each step."""
        ...

    def note(self, text: str) -> None:
        """After each measurement."""
        ...


def build_network(config: NetworkConfig) -> "diffusers.UNet2DModel":
    """The network with random weights."""
    plain = len(config.widths) - config.attention_levels
    attends = [level >= plain for level in range(len(config.widths))]
    return diffusers.UNet2DModel(
        sample_size=config.resolution_px,
        block_out_channels=config.widths,
        layers_per_block=config.blocks,
        norm_num_groups=config.groups,
        attention_head_dim=config.groups,
        down_block_types=tuple("AttnDownBlock2D" if one else "DownBlock2D" for one in attends),
        up_block_types=tuple("AttnUpBlock2D" if one else "UpBlock2D" for one in attends[::-1]),
        add_attention=any(attends),
    )


def train_teacher(
    config: TeacherTraining,
    pictures: tuple[Sequence[Picture], Sequence[Picture]],
    output: Path,
    reporter: Reporter,
    *,
    resume: bool,
) -> dict[str, float]:
    """Train to the end and write the folder.

    Args:
        config: the whole run.
        pictures: of the train and of the validation split.
        output: the folder.
        reporter: is told of steps and measurements.
        resume: go on from ``last.pt``.

    Returns:
        The last measurement.
    """
    output.mkdir(parents=True, exist_ok=True)
    if not resume and (output / LAST).exists():
        raise TeacherError(
            f"{output} holds a run already: go on with --resume, or name another --output"
        )
    run = _Run(config, pictures, output)
    if resume:
        run.restore()
    return run.to_the_end(reporter)


class _Run:
    """The state of one run."""

    def __init__(
        self,
        config: TeacherTraining,
        pictures: tuple[Sequence[Picture], Sequence[Picture]],
        output: Path,
    ) -> None:
        side_px = config.network.resolution_px
        self._config, self._output = config, output
        self._train = large_enough(pictures[0], side_px, "train")
        heldout = large_enough(pictures[1], side_px, "validation")
        self._heldout = spread(heldout, config.train.heldout_crops, side_px, config.seed)
        torch.manual_seed(config.seed)
        self._network = build_network(config.network)
        self._scheduler = diffusers.DDPMScheduler(
            num_train_timesteps=config.schedule.steps,
            beta_schedule=config.schedule.beta,
            clip_sample=False,
        )
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=config.train.lr, weight_decay=config.train.weight_decay
        )
        self._average = EMAModel(self._network.parameters(), decay=config.train.ema_decay)
        self._step = 0

    def restore(self) -> None:
        """Go on from ``last.pt``."""
        path = self._output / LAST
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            raise TeacherError(
                f"{path} cannot be read ({error}): train without --resume"
            ) from error
        if content["config"] != self._described():
            raise TeacherError(
                f"{path} was made with another configuration: restore it, or name another --output"
            )
        self._network.load_state_dict(content["weights"])
        self._optimizer.load_state_dict(content["optimizer"])
        self._average.load_state_dict(content["average"])
        self._step = int(content["step"])

    def _described(self) -> str:
        """All but where the images are on this machine, and how fast it is."""
        return self._config.model_dump_json(exclude={"threads": True, "data": {"roots"}})

    def to_the_end(self, reporter: Reporter) -> dict[str, float]:
        """Every step that is left; then the folder."""
        settings, measured = self._config.train, {}
        while self._step < settings.steps:
            loss = self._one_step()
            self._step += 1
            reporter.step(self._step, settings.steps, loss)
            last = self._step == settings.steps
            if last or self._step % settings.measure_every_steps == 0:
                measured = self._measure(loss)
                reporter.note("  ".join(f"{name} {value:.4g}" for name, value in measured.items()))
            if last or self._step % settings.checkpoint_every_steps == 0:
                self._save()
        if not measured:
            raise TeacherError("the run had no step left: raise train.steps")
        self._write()
        return measured

    def _one_step(self) -> float:
        settings = self._config.train
        random = np.random.default_rng((self._config.seed, self._step))
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        side_px = self._config.network.resolution_px
        x_BCHW = drawn(self._train, settings.batch, side_px, random)
        index_B = self._indices(random)
        noise_BCHW = torch.randn(x_BCHW.shape, generator=generator)
        x_t_BCHW = self._scheduler.add_noise(x_BCHW, noise_BCHW, index_B)
        self._network.train()
        loss = nn.functional.mse_loss(self._network(x_t_BCHW, index_B).sample, noise_BCHW)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TeacherError(
                f"the loss is {value} at step {self._step}: lower train.lr, then --resume from "
                "the last checkpoint or start again"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = settings.lr * pace(self._step, settings.warmup_steps, settings.steps)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        nn.utils.clip_grad_norm_(self._network.parameters(), settings.grad_clip)
        self._optimizer.step()
        self._average.step(self._network.parameters())
        return value

    def _indices(self, random: np.random.Generator) -> Tensor:
        u_B = random.random(self._config.train.batch) ** self._config.train.early_power
        return torch.from_numpy((u_B * self._config.schedule.steps).astype(np.int64))

    def _measure(self, loss: float) -> dict[str, float]:
        """The averaged weights on held-out crops; a line of ``progress.jsonl``."""
        middle = self._config.train.middle_index
        network = self._averaged()
        line = {
            "step": self._step,
            "loss": loss,
            "noise_mse_0": noise_error(network, self._scheduler, self._heldout, 0),
            f"noise_mse_{middle}": noise_error(network, self._scheduler, self._heldout, middle),
        }
        with (self._output / "progress.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line

    def _averaged(self) -> "diffusers.UNet2DModel":
        network = build_network(self._config.network)
        self._average.copy_to(network.parameters())
        return network.eval()

    def _save(self) -> None:
        save(
            self._output / LAST,
            {
                "config": self._described(),
                "step": self._step,
                "weights": self._network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "average": self._average.state_dict(),
            },
        )

    def _write(self) -> None:
        """The diffusers folder, which ``teacher.source`` names."""
        pipeline = diffusers.DDPMPipeline(unet=self._averaged(), scheduler=self._scheduler)
        pipeline.save_pretrained(self._output)


def pace(step: int, warmup_steps: int, steps: int) -> float:
    """The share of the learning rate: up in a line, then half a cosine down to a hundredth."""
    warmup_steps = min(warmup_steps, steps // 2)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
