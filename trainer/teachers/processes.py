"""The forward process of a diffusion model: what x_t is, and which epsilon a prediction means.

In: a scheduler's configuration and an index into its training schedule, 0 being the earliest
step (least noise). Out: ``Process``. Errors: ``TeacherError``.

Discrete (DDPM; Ho et al. 2020): x_t = sqrt(abar) x + sqrt(1 - abar) eps. A network predicts

- epsilon: eps itself;
- v (Salimans and Ho 2022): v = sqrt(abar) eps - sqrt(1 - abar) x, so
  eps = sqrt(abar) v + sqrt(1 - abar) x_t;
- sample: x, so eps = (x_t - sqrt(abar) x) / sqrt(1 - abar).

Flow matching (Lipman et al. 2023, as diffusers has it): x_t = (1 - sigma) x + sigma eps, and the
network predicts v = eps - x, so eps = x_t + (1 - sigma) v. Index i is the (i + 1)-th smallest sigma
of the schedule as trained, with the shift of the scheduler's configuration: 0 is sigma 0.001 for an
unshifted schedule of 1,000 steps, 0.003 with the shift of 3 of Stable Diffusion 3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from trainer.teachers.errors import TeacherError


class Process(Protocol):
    """One step of a forward process."""

    @property
    def time(self) -> float:
        """What the network is told: an array index, or 1,000 sigma."""
        ...

    @property
    def label(self) -> str:
        """What, beside the weights, changes a target; part of the teacher's id."""
        ...

    def noisy(self, x_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
        """x_t of x and known noise, by the scheduler's own function."""
        ...

    def eps(self, prediction_BCHW: Tensor, x_t_BCHW: Tensor) -> Tensor:
        """The epsilon that a prediction at x_t means."""
        ...

    def clean(self, x_t_BCHW: Tensor, eps_BCHW: Tensor) -> Tensor:
        """The x of which ``noisy`` makes x_t with this noise."""
        ...


@dataclass(frozen=True)
class _Discrete:
    scheduler: DDPMScheduler
    time: int
    label: str

    def noisy(self, x_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
        index_B = torch.full((len(x_BCHW),), self.time, device=x_BCHW.device)
        noisy: Tensor = self.scheduler.add_noise(x_BCHW, noise_BCHW, index_B)
        return noisy

    def eps(self, prediction_BCHW: Tensor, x_t_BCHW: Tensor) -> Tensor:
        abar = float(self.scheduler.alphas_cumprod[self.time])
        signal, noise = abar**0.5, (1 - abar) ** 0.5
        kinds: dict[str, Callable[[], Tensor]] = {
            "epsilon": lambda: prediction_BCHW,
            "v_prediction": lambda: signal * prediction_BCHW + noise * x_t_BCHW,
            "sample": lambda: (x_t_BCHW - signal * prediction_BCHW) / noise,
        }
        kind: str = self.scheduler.config.prediction_type
        return kinds[kind]()

    def clean(self, x_t_BCHW: Tensor, eps_BCHW: Tensor) -> Tensor:
        abar = float(self.scheduler.alphas_cumprod[self.time])
        signal, noise = float(abar**0.5), float((1 - abar) ** 0.5)
        return (x_t_BCHW - noise * eps_BCHW) / signal


@dataclass(frozen=True)
class _Flow:
    scheduler: FlowMatchEulerDiscreteScheduler
    time: float
    label: str

    def noisy(self, x_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
        time_B = torch.full((len(x_BCHW),), self.time, device=x_BCHW.device)
        noisy: Tensor = self.scheduler.scale_noise(x_BCHW, time_B, noise_BCHW)
        return noisy

    def eps(self, prediction_BCHW: Tensor, x_t_BCHW: Tensor) -> Tensor:
        sigma: float = self.time / self.scheduler.config.num_train_timesteps
        return x_t_BCHW + (1 - sigma) * prediction_BCHW

    def clean(self, x_t_BCHW: Tensor, eps_BCHW: Tensor) -> Tensor:
        sigma: float = self.time / self.scheduler.config.num_train_timesteps
        return (x_t_BCHW - sigma * eps_BCHW) / (1 - sigma)


def discrete_process(settings: Mapping[str, object], index: int, name: str) -> Process:
    """The process of a scheduler with betas, whichever sampler the folder names.

    Every such sampler of diffusers has the same forward process; ``DDPMScheduler`` is the one
    that training uses.
    """
    if "beta_schedule" not in settings:
        raise TeacherError(
            f"{name}: the scheduler {settings.get('_class_name')} has no betas, and so no discrete "
            "steps: give a U-Net with the scheduler that it was trained with (DDPMScheduler)"
        )
    scheduler = DDPMScheduler.from_config(dict(settings))
    _refuse_late(index, scheduler.config.num_train_timesteps, name)
    kind = scheduler.config.prediction_type
    if kind not in {"epsilon", "v_prediction", "sample"}:
        raise TeacherError(
            f"{name} predicts {kind!r}: give a teacher of epsilon, v_prediction or sample"
        )
    abar = float(scheduler.alphas_cumprod[index])
    return _Discrete(scheduler, index, f"{kind}-{abar:.8g}")


def flow_process(settings: Mapping[str, object], index: int, name: str) -> Process:
    """The process of a flow-matching scheduler."""
    if not str(settings.get("_class_name", "")).startswith("FlowMatch"):
        raise TeacherError(
            f"{name}: {settings.get('_class_name')} is no scheduler of flow matching: give the "
            "transformer with the scheduler that it was trained with"
        )
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(dict(settings))
    _refuse_late(index, len(scheduler.timesteps), name)
    time = float(scheduler.timesteps.flip(0)[index])
    return _Flow(scheduler, time, f"flow-{time:.8g}")


def _refuse_late(index: int, steps: int, name: str) -> None:
    if index >= steps:
        raise TeacherError(
            f"teacher.timestep_index {index} is over the last of {name}: choose 0 to {steps - 1}"
        )
