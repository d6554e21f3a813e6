"""What happens to every crop on its way to the detector."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from trainer.config.base import Part, Positive, Share


class AugmentConfig(Part):
    """What happens to every crop, real and fake alike (a pair shares every draw)."""

    flip_p: Share = 0.5
    resize_p: Share = 0.4
    resize_min: Positive = 0.7
    resize_max: Positive = 1.25
    blur_p: Share = 0.1
    blur_sigma_max: Positive = 1.0
    jpeg_p: Share = 0.6
    webp_p: Share = 0.15
    quality_min: Annotated[int, Field(ge=1, le=100)] = 60
    quality_max: Annotated[int, Field(ge=1, le=100)] = 100

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.resize_min > self.resize_max or self.quality_min > self.quality_max:
            raise ValueError("a minimum is above its maximum")
        if self.jpeg_p + self.webp_p > 1:
            raise ValueError("jpeg_p + webp_p must not exceed 1")
        return self
