"""The forward process of a diffusion model and the space that it works in.

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

import diffusers
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

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
