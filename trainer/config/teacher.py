"""The teacher of a training, and the training of a teacher."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.config.base import Count, NotNegative, Part, Positive, Share
from trainer.config.data import DataConfig

TeacherKind = Literal[
    "auto", "unet2d", "keras-ddpm", "unet2d-condition", "sd3", "flux", "random-tiny"
]


class TeacherConfig(Part):
    """The frozen diffusion model, and which of its noise the detector learns."""

    kind: TeacherKind = "auto"  # auto reads it from the folder; any other is checked against it
    source: str = ""  # a diffusers folder or hub id; empty for random-tiny
    variant: str = ""  # of the weights' file names, as diffusers has it: "fp16"
    dtype: Literal["fp32", "bf16"] = "fp32"  # of the arithmetic; targets are fp32 either way
    timestep_index: Annotated[int, Field(ge=0)] = 0  # 0 is the paper's t = 1
    inject_noise: bool = False  # x_t = x, or x_t of the scheduler's forward process
    # What the network sees at once. None: its own size in pixel space, the whole crop for latents.
    tile_px: Annotated[int, Field(ge=8)] | None = None
    tile_overlap_px: Annotated[int, Field(ge=0)] = 16
    window_px: Annotated[int, Field(ge=0)] = 0  # the part of a crop that has a target; 0 is all
    share: Share = 1.0  # of a batch that has targets
    repeat_epochs: Annotated[int, Field(ge=0)] = 0  # the crops with targets recur; 0 is never
    repeat_steps: Annotated[int, Field(ge=0)] = 0  # the same, counted in steps; before epochs
    batch: Count = 8
    statistics_crops: Annotated[int, Field(ge=2)] = 64  # measured for the standardisation
    control: Literal["none", "shuffled", "highpass"] = "none"  # controls of the claim

    @model_validator(mode="after")
    def _source_given(self) -> Self:
        if self.kind != "random-tiny" and not self.source:
            raise ValueError("source is needed: a diffusers folder, or a hub id")
        if self.tile_px is not None and self.tile_overlap_px >= self.tile_px:
            raise ValueError("tile_overlap_px must be below tile_px")
        return self


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
    """The configuration of ``python -m trainer teacher``.

    Of the data, the real images of the splits train and validation are used.
    """

    seed: int = 0
    threads: Count = 1
    data: DataConfig
    network: NetworkConfig = NetworkConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: OptimisationConfig = OptimisationConfig()

    @model_validator(mode="after")
    def _middle_is_a_step(self) -> Self:
        if self.train.middle_index >= self.schedule.steps:
            raise ValueError("train.middle_index must be below schedule.steps")
        return self
