"""The frozen diffusion model, and which of its noise the detector learns."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.config.base import Count, Part, Share


class TeacherConfig(Part):
    """The frozen diffusion model, and which of its noise the detector learns."""

    kind: Literal["unet2d", "keras-ddpm", "random-tiny"]
    source: str = ""  # a diffusers folder or hub id; empty for random-tiny
    timestep_index: Annotated[int, Field(ge=0)] = 0  # 0 is the paper's t = 1
    inject_noise: bool = False  # x_t = x, or x_t = scheduler.add_noise(x, noise, t)
    tile_px: Annotated[int, Field(ge=8)] = 64
    tile_overlap_px: Annotated[int, Field(ge=0)] = 16
    window_px: Annotated[int, Field(ge=0)] = 0  # the part of a crop that has a target; 0 is all
    share: Share = 1.0  # of a batch that has targets
    repeat_epochs: Annotated[int, Field(ge=0)] = 0  # the crops with targets recur; 0 is never
    batch: Count = 8
    statistics_crops: Annotated[int, Field(ge=2)] = 64  # measured for the standardisation
    control: Literal["none", "shuffled", "highpass"] = "none"  # controls of the claim

    @model_validator(mode="after")
    def _source_given(self) -> Self:
        if self.kind != "random-tiny" and not self.source:
            raise ValueError("source is needed: a diffusers folder, or a hub id")
        if self.tile_overlap_px >= self.tile_px:
            raise ValueError("tile_overlap_px must be below tile_px")
        return self
