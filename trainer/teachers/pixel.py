"""The frozen diffusion model, and the noise that it sees in an image.

In: crops [B, 3, H, W] in [-1, 1], after every augmentation. Out: eps [B, 3, H, W], fp32, without
gradient. Errors: ``TeacherError``.

A teacher freezes itself in its constructor. x_t is x itself, or ``scheduler.add_noise(x, ...)``
(``inject_noise``); in the first case the network is asked about noise that nobody added: what
it finds is the image's own high-frequency residual.
"""

import hashlib
from collections.abc import Callable
from typing import Protocol

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from trainer.config import TeacherConfig
from trainer.teachers.keras_ddpm import KerasDdpmUnet, TeacherError

_RGB = 3


class Teacher(Protocol):
    """What training needs of a teacher, whatever its family."""

    teacher_id: str

    def noise(self, x_BCHW: Tensor, seeds_B: list[int]) -> Tensor:
        """The predicted noise of crops in [-1, 1]; the seeds draw injected noise, if any."""
        ...


class EpsilonTeacher(nn.Module):
    """A pixel-space model that predicts epsilon at one timestep, applied tile by tile."""

    def __init__(
        self, network: nn.Module, scheduler: DDPMScheduler, config: TeacherConfig, name: str
    ) -> None:
        super().__init__()
        steps = scheduler.config.num_train_timesteps
        if scheduler.config.prediction_type != "epsilon":
            raise TeacherError(
                f"{name} predicts {scheduler.config.prediction_type}: give a teacher of epsilon"
            )
        if config.timestep_index >= steps:
            raise TeacherError(
                f"teacher.timestep_index {config.timestep_index} is over the last of {name}: "
                f"choose 0 to {steps - 1}"
            )
        self.network = network.eval().requires_grad_(requires_grad=False)
        self._scheduler, self._config = scheduler, config
        mode = "injected" if config.inject_noise else "plain"
        tiles = f"{config.tile_px}/{config.tile_overlap_px}"
        self.teacher_id = f"{name}@{config.timestep_index}-{mode}-{tiles}"

    def train(self, mode: bool = True) -> "EpsilonTeacher":  # noqa: FBT001, FBT002  torch's signature
        """A teacher never trains: its dropout and norms stay as they are."""
        del mode
        return super().train(mode=False)

    @torch.no_grad()
    def noise(self, x_BCHW: Tensor, seeds_B: list[int]) -> Tensor:
        """Eps [B, 3, H, W] of crops in [-1, 1]; overlapping tiles are averaged."""
        x_t_BCHW = self._x_t(x_BCHW.float(), seeds_B)
        return tiled(self._predict, x_t_BCHW, self._config.tile_px, self._config.tile_overlap_px)

    def _x_t(self, x_BCHW: Tensor, seeds_B: list[int]) -> Tensor:
        if not self._config.inject_noise:
            return x_BCHW
        noise_BCHW = torch.stack(
            [
                torch.randn(one.shape, generator=torch.Generator().manual_seed(seed))
                for one, seed in zip(x_BCHW, seeds_B, strict=True)
            ]
        )
        index_B = torch.full((len(x_BCHW),), self._config.timestep_index)
        noisy: Tensor = self._scheduler.add_noise(x_BCHW, noise_BCHW, index_B)
        return noisy

    def _predict(self, tile_BCHW: Tensor) -> Tensor:
        # A learned-sigma network has six channels: the first three are the noise.
        eps: Tensor = self.network(tile_BCHW, self._config.timestep_index).sample[:, :_RGB]
        return eps


def tiled(
    predict: Callable[[Tensor], Tensor], x_BCHW: Tensor, tile_px: int, overlap_px: int
) -> Tensor:
    """Apply a function of tiles to a whole image; where tiles overlap, their mean."""
    total, count = torch.zeros_like(x_BCHW), torch.zeros_like(x_BCHW[:1, :1])
    for top in _starts(x_BCHW.shape[2], tile_px, overlap_px):
        for left in _starts(x_BCHW.shape[3], tile_px, overlap_px):
            rows, columns = slice(top, top + tile_px), slice(left, left + tile_px)
            total[:, :, rows, columns] += predict(x_BCHW[:, :, rows, columns])
            count[:, :, rows, columns] += 1
    return total / count


def _starts(length_px: int, tile_px: int, overlap_px: int) -> list[int]:
    if length_px < tile_px:
        raise TeacherError(f"{length_px} px are less than a tile of {tile_px}: enlarge the crop")
    last = length_px - tile_px
    return sorted({min(start, last) for start in range(0, last + tile_px, tile_px - overlap_px)})


def open_teacher(config: TeacherConfig) -> EpsilonTeacher:
    """Load the teacher that the configuration names, frozen."""
    if config.kind == "random-tiny":
        return EpsilonTeacher(_tiny_network(), DDPMScheduler(), config, "random-tiny")
    loader = KerasDdpmUnet if config.kind == "keras-ddpm" else UNet2DModel
    try:
        # Loaded the same way whether accelerate is installed or not.
        network, loading = loader.from_pretrained(
            config.source, subfolder="unet", output_loading_info=True, low_cpu_mem_usage=False
        )
        scheduler = DDPMScheduler.from_pretrained(config.source, subfolder="scheduler")
    except (OSError, ValueError, RuntimeError) as error:
        raise TeacherError(
            f"no diffusion model can be loaded from {config.source!r} ({error}): name a diffusers "
            "folder or hub id with unet/ and scheduler/, or make one with teacher-convert"
        ) from error
    # diffusers only warns, and leaves what it could not load at random.
    wrong = [key for kind in ("missing_keys", "mismatched_keys") for key in loading[kind]]
    if wrong:
        raise TeacherError(
            f"{config.source!r} lacks {len(wrong)} weights of the network, {wrong[0]} among them: "
            "set teacher.kind to what the folder holds, or convert it again"
        )
    return EpsilonTeacher(network, scheduler, config, _name(config.source, network))


def _name(source: str, network: nn.Module) -> str:
    """The folder's name and the digest of the weights: its place differs between machines."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    return f"{source.rstrip('/').rsplit('/', maxsplit=1)[-1]}-{digest.hexdigest()[:12]}"


def _tiny_network() -> UNet2DModel:
    """A random U-Net of a few thousand parameters, the same every time: for tests."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(
            sample_size=32,
            block_out_channels=(8, 8),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
        )
