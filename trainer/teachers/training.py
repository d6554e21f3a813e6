"""Trains a small pixel-space DDPM (Ho et al. 2020) on photographs, with diffusers' own pieces.

The loss is the mean squared error of epsilon. Every draw is a function of (seed, step), so a resumed
run ends with the weights of an uninterrupted one.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError

import diffusers
import numpy as np
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.bundle.files import atomic_writer
from trainer.config import NetworkConfig, TeacherTraining
from trainer.data.dataset import Picture
from trainer.errors import TeacherError

LAST = "last.pt"
OnStep = Callable[[int, int, float], None]  # step, steps, loss
_BATCH = 16
_NOISE_SEED = 20_260  # the same noise at each measurement, so that two of them compare


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
        down_block_types=tuple("AttnDownBlock2D" if at else "DownBlock2D" for at in attends),
        up_block_types=tuple("AttnUpBlock2D" if at else "UpBlock2D" for at in attends[::-1]),
        add_attention=any(attends),
    )


def train_teacher(
    config: TeacherTraining,
    pictures: tuple[Sequence[Picture], Sequence[Picture]],
    output: Path,
    on_step: OnStep,
    *,
    resume: bool,
) -> dict[str, float]:
    """Train to the end and write a diffusers folder with the averaged weights.

    Args:
        config: the whole run.
        pictures: of the train and of the validation split.
        output: the folder; ``last.pt`` and ``progress.jsonl`` lie in it too.
        on_step: called after each step.
        resume: continue from ``last.pt``.

    Returns:
        The last measurement: step, loss, and the error of the noise at two indices.

    Raises:
        TeacherError: the run cannot be resumed, the pictures are too small, or the loss is not
            finite.
    """
    output.mkdir(parents=True, exist_ok=True)
    if not resume and (output / LAST).exists():
        raise TeacherError(
            f"{output} already holds a run: continue it with --resume, or name another --output"
        )
    run = _Run(config, pictures, output)
    if resume:
        run.restore()
    settings, measured = config.train, dict[str, float]()
    while run.step < settings.steps:
        loss = run.train_step()
        on_step(run.step, settings.steps, loss)
        last = run.step == settings.steps
        if last or run.step % settings.measure_every_steps == 0:
            measured = run.measure(loss)
        if last or run.step % settings.checkpoint_every_steps == 0:
            run.save()
    if not measured:
        raise TeacherError(f"{output} is a finished run: name another --output")
    diffusers.DDPMPipeline(unet=run.averaged(), scheduler=run.scheduler).save_pretrained(output)
    return measured


class _Run:
    """The state of a run."""

    def __init__(
        self,
        config: TeacherTraining,
        pictures: tuple[Sequence[Picture], Sequence[Picture]],
        output: Path,
    ) -> None:
        side_px, settings = config.network.resolution_px, config.train
        self._config, self._path, self._output = config, output / LAST, output
        self._train = large_enough(pictures[0], side_px, "train")
        heldout = large_enough(pictures[1], side_px, "validation")
        self._heldout = spread(heldout, settings.heldout_crops, side_px, config.seed)
        torch.manual_seed(config.seed)
        self._network = build_network(config.network)
        self.scheduler = diffusers.DDPMScheduler(
            num_train_timesteps=config.schedule.steps,
            beta_schedule=config.schedule.beta,
            clip_sample=False,
        )
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
        self._rates = get_cosine_schedule_with_warmup(
            self._optimizer, settings.warmup_steps, settings.steps
        )
        self._average = EMAModel(self._network.parameters(), decay=settings.ema_decay)
        self.step = 0

    def _parts(self) -> dict[str, EMAModel]:
        """What a checkpoint holds; all have ``state_dict`` and ``load_state_dict``."""
        return {
            "weights": self._network,
            "optimizer": self._optimizer,
            "rates": self._rates,
            "average": self._average,
        }

    def _described(self) -> str:
        """The configuration without what may differ between machines."""
        return self._config.model_dump_json(exclude={"threads": True, "data": {"roots"}})

    def restore(self) -> None:
        """Continue from ``last.pt``."""
        try:
            content = torch.load(self._path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            raise TeacherError(
                f"{self._path} cannot be read ({error}): train without --resume"
            ) from error
        if content["config"] != self._described():
            raise TeacherError(
                f"{self._path} was made by another configuration: restore it, or name another "
                "--output"
            )
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        self.step = int(content["step"])

    def save(self) -> None:
        """Write ``last.pt``."""
        content = {name: part.state_dict() for name, part in self._parts().items()}
        content |= {"config": self._described(), "step": self.step}
        with atomic_writer(self._path) as file:
            torch.save(content, file)

    def train_step(self) -> float:
        """Take a step; returns the loss."""
        settings = self._config.train
        random = np.random.default_rng((self._config.seed, self.step))
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        side_px = self._config.network.resolution_px
        x_BCHW = random_crops(self._train, settings.batch, side_px, random)
        share_B = random.random(settings.batch) ** settings.early_power
        index_B = torch.from_numpy((share_B * self._config.schedule.steps).astype(np.int64))
        noise_BCHW = torch.randn(x_BCHW.shape, generator=generator)
        x_t_BCHW = self.scheduler.add_noise(x_BCHW, noise_BCHW, index_B)
        self._network.train()
        loss = nn.functional.mse_loss(self._network(x_t_BCHW, index_B).sample, noise_BCHW)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TeacherError(
                f"the loss is {value} at step {self.step}: lower train.lr, then --resume from "
                "the last checkpoint or start again"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        nn.utils.clip_grad_norm_(self._network.parameters(), settings.grad_clip)
        self._optimizer.step()
        self._rates.step()
        self._average.step(self._network.parameters())
        self.step += 1
        return value

    def measure(self, loss: float) -> dict[str, float]:
        """Measure the averaged weights on held-out crops; a line of ``progress.jsonl``."""
        middle = self._config.train.middle_index
        network = self.averaged()
        line = {
            "step": self.step,
            "loss": loss,
            "noise_mse_0": noise_error(network, self.scheduler, self._heldout, 0),
            f"noise_mse_{middle}": noise_error(network, self.scheduler, self._heldout, middle),
        }
        with (self._output / "progress.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line

    def averaged(self) -> "diffusers.UNet2DModel":
        """The network with the averaged weights."""
        network = build_network(self._config.network)
        self._average.copy_to(network.parameters())
        return network.eval()


@torch.no_grad()
def noise_error(
    network: nn.Module, scheduler: diffusers.DDPMScheduler, x_BCHW: Tensor, index: int
) -> float:
    """The mean squared error of predicted noise at an index; predicting zero gives 1.

    Args:
        network: predicts epsilon.
        scheduler: its own.
        x_BCHW: crops in [-1, 1] that it did not learn.
        index: into the schedule.
    """
    generator = torch.Generator().manual_seed(_NOISE_SEED)
    noise_BCHW = torch.randn(x_BCHW.shape, generator=generator)
    total = 0.0
    for start in range(0, len(x_BCHW), _BATCH):
        x, noise = x_BCHW[start : start + _BATCH], noise_BCHW[start : start + _BATCH]
        x_t = scheduler.add_noise(x, noise, torch.full((len(x),), index))
        total += float((network(x_t, index).sample[:, :3] - noise).square().sum())
    return total / noise_BCHW.numel()


def large_enough(pictures: Sequence[Picture], side_px: int, split: str) -> list[Picture]:
    """The pictures that hold a crop; scaling up would hide the noise."""
    large = [picture for picture in pictures if min(picture.pixels_HWC.shape[:2]) >= side_px]
    if not large:
        raise TeacherError(
            f"no picture of the {split} split has {side_px} px on both sides: "
            "lower network.resolution_px, or name larger photographs"
        )
    return large


def random_crops(
    pictures: Sequence[Picture], count: int, side_px: int, random: np.random.Generator
) -> Tensor:
    """Native crops of random pictures at random places, half of them mirrored."""
    chosen = random.integers(0, len(pictures), size=count)
    crops = [_crop(pictures[int(index)].pixels_HWC, side_px, random) for index in chosen]
    mirrored = [crop[:, ::-1] if random.random() < 0.5 else crop for crop in crops]  # noqa: PLR2004  half
    return _as_tensor(mirrored)


def spread(pictures: Sequence[Picture], count: int, side_px: int, seed: int) -> Tensor:
    """Crops evenly spread over the pictures, at places that the seed draws."""
    random = np.random.default_rng(seed)
    chosen = [pictures[index * len(pictures) // count] for index in range(count)]
    return _as_tensor([_crop(picture.pixels_HWC, side_px, random) for picture in chosen])


def _crop(
    pixels_HWC: NDArray[np.uint8], side_px: int, random: np.random.Generator
) -> NDArray[np.uint8]:
    height, width = pixels_HWC.shape[:2]
    top, left = (int(random.integers(0, length - side_px + 1)) for length in (height, width))
    return pixels_HWC[top : top + side_px, left : left + side_px]


def _as_tensor(crops: Sequence[NDArray[np.uint8]]) -> Tensor:
    """uint8 crops [S, S, 3] -> [B, 3, S, S] in [-1, 1]."""
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
