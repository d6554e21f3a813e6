"""The frozen diffusion model, and which of its noise the detector learns."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.config.base import Count, Part, Share

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
