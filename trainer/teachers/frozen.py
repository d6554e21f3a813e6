"""A frozen diffusion model that predicts noise: its forward process, its space, and its tiles.

x_t is x itself, or the scheduler's x_t of x and noise drawn from the crop's seed (``inject_noise``).
In the first case no noise was added: the prediction is the image's own high-frequency residual.

An index counts the steps of the training schedule; 0 is the earliest step (least noise).

Discrete (DDPM; Ho et al. 2020): x_t = sqrt(abar) x + sqrt(1 - abar) eps. A network predicts

- epsilon: eps itself;
- v (Salimans and Ho 2022): v = sqrt(abar) eps - sqrt(1 - abar) x, so
  eps = sqrt(abar) v + sqrt(1 - abar) x_t;
- sample: x, so eps = (x_t - sqrt(abar) x) / sqrt(1 - abar).

Flow matching (Lipman et al. 2023, as in diffusers): x_t = (1 - sigma) x + sigma eps, and the network
predicts v = eps - x, so eps = x_t + (1 - sigma) v. Index i is the (i + 1)-th smallest sigma of the
training schedule, with the shift of the scheduler's configuration: index 0 is sigma 0.001 for an
unshifted schedule of 1,000 steps, 0.003 with the shift of 3 of Stable Diffusion 3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import diffusers
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from trainer.config import TeacherConfig
from trainer.errors import TeacherError

RGB = 3


@dataclass(frozen=True)
class DiscreteProcess:
    """A step of a schedule with betas.

    Attributes:
        scheduler: with the schedule of the training.
        time: the time input of the network: an array index.
        label: what changes a target beside the weights; part of the teacher's id.
    """

    scheduler: DDPMScheduler
    time: int
    label: str

    def noisy(self, x_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
        """x_t of x and known noise, by the scheduler's own function."""
        index_B = torch.full((len(x_BCHW),), self.time, device=x_BCHW.device)
        noisy: Tensor = self.scheduler.add_noise(x_BCHW, noise_BCHW, index_B)
        return noisy

    def eps(self, prediction_BCHW: Tensor, x_t_BCHW: Tensor) -> Tensor:
        """The epsilon that a prediction at x_t means."""
        signal, noise = self._weights()
        kinds: dict[str, Callable[[], Tensor]] = {
            "epsilon": lambda: prediction_BCHW,
            "v_prediction": lambda: signal * prediction_BCHW + noise * x_t_BCHW,
            "sample": lambda: (x_t_BCHW - signal * prediction_BCHW) / noise,
        }
        kind: str = self.scheduler.config.prediction_type
        return kinds[kind]()

    def clean(self, x_t_BCHW: Tensor, eps_BCHW: Tensor) -> Tensor:
        """The x from which ``noisy`` makes x_t with this noise."""
        signal, noise = self._weights()
        return (x_t_BCHW - noise * eps_BCHW) / signal

    def _weights(self) -> tuple[float, float]:
        abar = float(self.scheduler.alphas_cumprod[self.time])
        return abar**0.5, (1 - abar) ** 0.5


@dataclass(frozen=True)
class FlowProcess:
    """A step of flow matching; its time is 1,000 sigma. See ``DiscreteProcess``."""

    scheduler: FlowMatchEulerDiscreteScheduler
    time: float
    label: str

    def noisy(self, x_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
        """x_t of x and known noise, by the scheduler's own function."""
        time_B = torch.full((len(x_BCHW),), self.time, device=x_BCHW.device)
        noisy: Tensor = self.scheduler.scale_noise(x_BCHW, time_B, noise_BCHW)
        return noisy

    def eps(self, prediction_BCHW: Tensor, x_t_BCHW: Tensor) -> Tensor:
        """The epsilon that a velocity at x_t means."""
        return x_t_BCHW + (1 - self._sigma()) * prediction_BCHW

    def clean(self, x_t_BCHW: Tensor, eps_BCHW: Tensor) -> Tensor:
        """The x from which ``noisy`` makes x_t with this noise."""
        return (x_t_BCHW - self._sigma() * eps_BCHW) / (1 - self._sigma())

    def _sigma(self) -> float:
        sigma: float = self.time / self.scheduler.config.num_train_timesteps
        return sigma


Process = DiscreteProcess | FlowProcess


def discrete_process(settings: Mapping[str, object], index: int, name: str) -> DiscreteProcess:
    """The process of a scheduler with betas, whichever sampler the folder names.

    Every sampler with betas in diffusers has the same forward process as ``DDPMScheduler``.

    Args:
        settings: the scheduler's stored configuration.
        index: into the training schedule.
        name: of the model, for messages.
    """
    if "beta_schedule" not in settings:
        raise TeacherError(
            f"{name}: the scheduler {settings.get('_class_name')} has no betas: give a U-Net with "
            "the scheduler that it was trained with (DDPMScheduler)"
        )
    scheduler = DDPMScheduler.from_config(dict(settings))
    _refuse_late(index, scheduler.config.num_train_timesteps, name)
    kind = scheduler.config.prediction_type
    if kind not in {"epsilon", "v_prediction", "sample"}:
        raise TeacherError(
            f"{name} predicts {kind!r}: give a teacher that predicts epsilon, v_prediction or sample"
        )
    abar = float(scheduler.alphas_cumprod[index])
    return DiscreteProcess(scheduler, index, f"{kind}-{abar:.8g}")


def flow_process(settings: Mapping[str, object], index: int, name: str) -> FlowProcess:
    """The process of a flow-matching scheduler; arguments as of ``discrete_process``."""
    if not str(settings.get("_class_name", "")).startswith("FlowMatch"):
        raise TeacherError(
            f"{name}: {settings.get('_class_name')} is not a flow-matching scheduler: give the "
            "transformer with the scheduler that it was trained with"
        )
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(dict(settings))
    _refuse_late(index, len(scheduler.timesteps), name)
    time = float(scheduler.timesteps.flip(0)[index])
    return FlowProcess(scheduler, time, f"flow-{time:.8g}")


def _refuse_late(index: int, steps: int, name: str) -> None:
    if index >= steps:
        raise TeacherError(
            f"teacher.timestep_index {index} is past the schedule of {name}: choose 0 to {steps - 1}"
        )


class Pixels(nn.Module):
    """The space of a pixel-space model: the crop itself."""

    channels, stride = RGB, 1

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Return the crops."""
        return x_BCHW

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """Return the pictures."""
        return x_0_BCHW


class Latents(nn.Module):
    """The mode of an autoencoder's posterior, shifted and scaled as in the model's training.

    Args:
        vae: the autoencoder.
        name: of the model, for messages.
        decodes: whether its decoder is kept: half of its weights.
    """

    def __init__(self, vae: "diffusers.AutoencoderKL", name: str, *, decodes: bool = False) -> None:
        super().__init__()
        if vae.config.latents_mean is not None:
            raise TeacherError(
                f"{name}: latents with a mean and a spread per channel are not supported: give a "
                "model whose VAE has only a scaling_factor (Stable Diffusion, FLUX)"
            )
        if not decodes:
            vae.decoder = nn.Identity()
        self.vae, self._name, self._decodes = vae, name, decodes
        self.channels = int(vae.config.latent_channels)
        self.stride = 2 ** (len(vae.config.block_out_channels) - 1)
        self._shift = float(vae.config.shift_factor or 0.0)
        self._scale = float(vae.config.scaling_factor)

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Latents [B, channels, H / stride, W / stride], fp32."""
        mode_BCHW: Tensor = self.vae.encode(x_BCHW).latent_dist.mode()
        return (mode_BCHW.float() - self._shift) * self._scale

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """Pictures [B, 3, H, W], if the decoder was kept."""
        if not self._decodes:
            raise TeacherError(
                f"{self._name} was opened without its decoder: open it with decodes=True"
            )
        decoded_BCHW: Tensor = self.vae.decode(x_0_BCHW / self._scale + self._shift).sample
        return decoded_BCHW.float()


Space = Pixels | Latents


class Teacher(Protocol):
    """A frozen diffusion model that predicts the noise of crops.

    Attributes:
        teacher_id: a name, the digest of the weights and the options that change a target: two
            teachers with the same id give the same targets.
        channels: of a target: 3 in pixel space, 4 or 16 for latents.
        stride: pixels of the crop to a place of the target: 1 in pixel space, 8 for most latents.
    """

    teacher_id: str
    channels: int
    stride: int

    def noise(self, x_BCHW: Tensor, seeds_B: list[int]) -> Tensor:
        """Predict the noise of crops.

        Args:
            x_BCHW: crops [B, 3, H, W] in [-1, 1], after every augmentation.
            seeds_B: draw the injected noise of each crop, if the configuration injects any.

        Returns:
            eps [B, channels, H / stride, W / stride], fp32, without gradient, on x's device.

        Raises:
            TeacherError: the crop does not fit the model.
        """
        ...


class Network(Protocol):
    """A denoising network with its conditioning; sides are in places of its space."""

    @property
    def multiple(self) -> int:
        """Sides must be multiples of this."""
        ...

    @property
    def largest(self) -> int | None:
        """The longest side that it takes, or None for any."""
        ...

    @property
    def native(self) -> int | None:
        """The side of a tile unless the configuration has one, or None for the whole crop."""
        ...

    def predict(self, x_t_BCHW: Tensor, time: float) -> Tensor:
        """Its prediction, [B, channels or more, H, W]."""
        ...


class FrozenTeacher(nn.Module):
    """The implementation of ``Teacher``, applied tile by tile.

    Args:
        network: predicts in the space.
        space: pixels or latents.
        process: the step of the forward process.
        config: tiles, precision, injected noise.
        name: of the model, with the digest of its weights.

    Raises:
        TeacherError: the tiles do not fit the network.
    """

    def __init__(
        self, network: Network, space: Space, process: Process, config: TeacherConfig, name: str
    ) -> None:
        super().__init__()
        self.network, self.space = network, space  # torch moves those that are modules
        self.channels, self.stride = space.channels, space.stride
        self._process, self._config = process, config
        self._tile_px = _tile_px(network, space, config, name)
        self.teacher_id = f"{name}@{self._options()}"
        self.eval().requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> "FrozenTeacher":  # noqa: FBT001, FBT002  torch's signature
        """Stay in evaluation mode: dropout and norms never change."""
        del mode
        return super().train(mode=False)

    def _options(self) -> str:
        """The options that change a target."""
        config, label = self._config, self._process.label
        mode = "injected" if config.inject_noise else "plain"
        tiles = f"{self._tile_px}/{config.tile_overlap_px}" if self._tile_px else "whole"
        parts = [str(config.timestep_index), mode, tiles]
        # Without injection, the prediction of an epsilon model does not depend on the schedule.
        if config.inject_noise or not label.startswith("epsilon"):
            parts.append(label)
        return "-".join(parts if config.dtype == "fp32" else [*parts, config.dtype])

    @torch.no_grad()
    def noise(self, x_BCHW: Tensor, seeds_B: list[int]) -> Tensor:
        """Eps of crops in [-1, 1]; see ``Teacher``. Overlapping tiles are averaged."""
        self._refuse_misfit(x_BCHW.shape[2], x_BCHW.shape[3])
        weights = next(self.parameters(), None)
        device = torch.device("cpu") if weights is None else weights.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._config.dtype == "bf16"):
            x_t_BCHW = self.space.encode(x_BCHW.float().to(device))
            if self._config.inject_noise:
                x_t_BCHW = self._process.noisy(x_t_BCHW, _drawn_noise(x_t_BCHW, seeds_B))
            tile = self._tile_px // self.stride if self._tile_px else max(x_t_BCHW.shape[2:])
            overlap = self._config.tile_overlap_px // self.stride
            return tiled(self._eps, x_t_BCHW, tile, min(overlap, tile - 1)).to(x_BCHW.device)

    def _eps(self, x_t_BCHW: Tensor) -> Tensor:
        prediction = self.network.predict(x_t_BCHW, self._process.time)
        # A network that predicts its variance too has twice the channels: the first half is noise.
        return self._process.eps(prediction[:, : self.channels].float(), x_t_BCHW)

    def _refuse_misfit(self, height_px: int, width_px: int) -> None:
        if self._tile_px is None:
            _refuse_size(self.network, self.stride, (height_px, width_px), "a crop")
        elif min(height_px, width_px) < self._tile_px or (height_px | width_px) % self.stride:
            raise TeacherError(
                f"a crop of {height_px} x {width_px} px does not fit a teacher with tiles of "
                f"{self._tile_px} px and stride {self.stride}: enlarge the crop (train.crop_px, "
                "teacher.window_px), or choose another teacher.tile_px"
            )


def _tile_px(network: Network, space: Space, config: TeacherConfig, name: str) -> int | None:
    """The side of a tile, or None for the whole crop."""
    native_px = network.native * space.stride if network.native else None
    tile_px = native_px if config.tile_px is None else config.tile_px
    if tile_px is None:
        return None
    _refuse_size(network, space.stride, (tile_px, tile_px), f"{name}: a tile")
    if config.tile_overlap_px >= tile_px:
        raise TeacherError(
            f"{name} has tiles of {tile_px} px: choose a smaller teacher.tile_overlap_px"
        )
    return tile_px


def _refuse_size(network: Network, stride: int, sides_px: tuple[int, int], what: str) -> None:
    step_px = network.multiple * stride
    size = f"{what} of {sides_px[0]} x {sides_px[1]} px"
    if any(side_px % step_px for side_px in sides_px):
        raise TeacherError(
            f"{size} does not fit the teacher: choose multiples of {step_px} px "
            "(train.crop_px, teacher.window_px, teacher.tile_px)"
        )
    if network.largest is not None and max(sides_px) > network.largest * stride:
        raise TeacherError(
            f"{size} is over the {network.largest * stride} px that the teacher takes: "
            "set a smaller teacher.tile_px"
        )


def _drawn_noise(x_0_BCHW: Tensor, seeds_B: list[int]) -> Tensor:
    """Normal noise of the shape of x_0, a generator for each crop: the same on every device."""
    drawn = [
        torch.randn(x_0_CHW.shape, generator=torch.Generator().manual_seed(seed))
        for x_0_CHW, seed in zip(x_0_BCHW, seeds_B, strict=True)
    ]
    return torch.stack(drawn).to(x_0_BCHW.device)


def tiled(predict: Callable[[Tensor], Tensor], x_BCHW: Tensor, tile: int, overlap: int) -> Tensor:
    """Apply a function of tiles to a whole map, with the mean where tiles overlap.

    Args:
        predict: keeps the shape of a tile.
        x_BCHW: a side below ``tile`` is taken whole.
        tile: the side of a tile, in places of x.
        overlap: the least that neighbours share.
    """
    total, count = torch.zeros_like(x_BCHW), torch.zeros_like(x_BCHW[:1, :1])
    for top in _tile_starts(x_BCHW.shape[2], tile, overlap):
        for left in _tile_starts(x_BCHW.shape[3], tile, overlap):
            rows, columns = slice(top, top + tile), slice(left, left + tile)
            total[:, :, rows, columns] += predict(x_BCHW[:, :, rows, columns])
            count[:, :, rows, columns] += 1
    return total / count


def _tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    last = max(0, length - tile)
    return sorted({min(start, last) for start in range(0, last + tile, tile - overlap)})
