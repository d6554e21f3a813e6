"""What happens to every crop on its way to the detector."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.config.base import NotNegative, Part, Positive, Share

ResizeFilter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


class AugmentConfig(Part):
    """What happens to every crop, real and fake alike (a pair shares every draw).

    A crop is resized, blurred, mirrored, turned, recoloured, made noisy and re-encoded, in this
    order, each with its own probability; ``jpeg_p`` and ``webp_p`` exclude each other. With
    probability ``chain_p`` it passes a chain in place of resizing, blur, noise and re-encoding: 2
    to ``chain_max`` of them in random order, each drawn in the ratio of the probabilities, so that
    a picture may be resized and re-encoded again and again.
    """

    flip_p: Share = 0.5
    turn_p: Share = 0.0  # by one to three quarter turns: what is up and down says nothing
    colour_p: Share = 0.0  # so that neither palette nor exposure tells the class
    colour_max: Annotated[float, Field(ge=0, lt=1)] = 0.25  # how far each gain may be from 1
    resize_p: Share = 0.4
    resize_min: Positive = 0.7  # in a chain: of every stage, relative to the native pixels
    resize_max: Positive = 1.25
    resize_filters: Annotated[tuple[ResizeFilter, ...], Field(min_length=1)] = (
        "bilinear",
        "bicubic",
        "lanczos",
    )
    blur_p: Share = 0.1
    blur_sigma_max: Positive = 1.0
    noise_p: Share = 0.0
    noise_sigma_max: NotNegative = 4.0  # on the scale of 0 to 255
    jpeg_p: Share = 0.6
    webp_p: Share = 0.15
    quality_min: Annotated[int, Field(ge=1, le=100)] = 60
    quality_max: Annotated[int, Field(ge=1, le=100)] = 100
    chain_p: Share = 0.0
    chain_max: Annotated[int, Field(ge=2, le=8)] = 4

    @property
    def chain_weights(self) -> dict[str, float]:
        """How often a chain draws each operation, relative to the others."""
        return {
            "resize": self.resize_p,
            "blur": self.blur_p,
            "noise": self.noise_p,
            "jpeg": self.jpeg_p,
            "webp": self.webp_p,
        }

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.resize_min > self.resize_max or self.quality_min > self.quality_max:
            raise ValueError("a minimum is above its maximum")
        if self.jpeg_p + self.webp_p > 1:
            raise ValueError("jpeg_p + webp_p must not exceed 1")
        if self.chain_p > 0 and not any(self.chain_weights.values()):
            raise ValueError("chain_p needs a positive resize_p, blur_p, noise_p, jpeg_p or webp_p")
        return self
