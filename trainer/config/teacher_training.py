"""A small diffusion model of one's own real images: the file of ``python -m trainer teacher``.

In: the bytes of a TOML file. Out: ``TeacherTraining``. Errors: ``ConfigError``.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.config.base import Count, NotNegative, Part, Positive, Share
from trainer.config.data import DataConfig


class NetworkConfig(Part):
    """The U-Net, diffusers' ``UNet2DModel``."""

    resolution_px: Annotated[int, Field(ge=16, multiple_of=8)] = 32
    widths: Annotated[tuple[Count, ...], Field(min_length=2)] = (32, 64, 64)
    blocks: Count = 1  # residual blocks a level
    attention_levels: Annotated[int, Field(ge=0)] = 0  # the last so many levels attend
    groups: Count = 8  # of each group norm

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.resolution_px % 2 ** (len(self.widths) - 1):
            raise ValueError("resolution_px must be halved once for each width after the first")
        if any(width % self.groups for width in self.widths):
            raise ValueError("every width must be a multiple of groups")
        if self.attention_levels > len(self.widths):
            raise ValueError("attention_levels is more than there are widths")
        return self


class ScheduleConfig(Part):
    """How noise grows with the index; the defaults are those of the converted DDPM."""

    steps: Annotated[int, Field(ge=2)] = 300
    beta: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "squaredcos_cap_v2"


class OptimisationConfig(Part):
    """The loop. An index is drawn as floor(steps * u ** early_power), u uniform in [0, 1)."""

    steps: Count = 1000
    batch: Count = 32
    lr: Positive = 1e-3
    warmup_steps: Count = 50
    weight_decay: NotNegative = 0.0
    grad_clip: Positive = 1.0
    ema_decay: Share = 0.995
    early_power: Annotated[float, Field(ge=1)] = 1.0  # 1 is uniform; more favours little noise
    checkpoint_every_steps: Count = 100
    measure_every_steps: Count = 100
    heldout_crops: Count = 128
    middle_index: Annotated[int, Field(ge=1)] = 50  # measured beside index 0


class TeacherTraining(Part):
    """A whole run; of the splits, ``train.real`` and ``validation.real`` are used."""

    seed: int = 0
    threads: Count = 1
    data: DataConfig
    network: NetworkConfig = NetworkConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: OptimisationConfig = OptimisationConfig()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.data.splits.validation.real:
            raise ValueError("data.splits.validation.real is needed: noise is measured on it")
        if self.train.middle_index >= self.schedule.steps:
            raise ValueError("train.middle_index must be below schedule.steps")
        return self
