"""What can happen to a picture between the camera or the generator and us, one class each.

In: a Pillow picture, RGB. Out: another. No errors. Every operation is frozen and applies itself in
the same way each time: what is random (a quality, a noise field's seed) was drawn before.
"""

import io
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageFilter

from trainer.config import ResizeFilter

_FILTERS: dict[ResizeFilter, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
_LUMA_C1 = np.array([[0.299], [0.587], [0.114]], dtype=np.float32)  # ITU-R BT.601


class Operation(Protocol):
    """One step of a picture's way."""

    def apply(self, image: Image.Image) -> Image.Image:
        """The picture after it."""
        ...


@dataclass(frozen=True)
class Resize:
    """To a square of ``side_px``."""

    side_px: int
    resampling: ResizeFilter

    def apply(self, image: Image.Image) -> Image.Image:
        """The resampled picture, or the same where its size is right already."""
        if image.size == (self.side_px, self.side_px):
            return image
        return image.resize((self.side_px, self.side_px), _FILTERS[self.resampling])


@dataclass(frozen=True)
class Blur:
    """Gaussian, of ``sigma_px``."""

    sigma_px: float

    def apply(self, image: Image.Image) -> Image.Image:
        """The blurred picture."""
        return image.filter(ImageFilter.GaussianBlur(self.sigma_px))


@dataclass(frozen=True)
class Noise:
    """Gaussian and independent by pixel and channel; the two of a pair get the same field."""

    sigma: float  # on the scale of 0 to 255
    seed: int

    def apply(self, image: Image.Image) -> Image.Image:
        """The noisy picture, rounded and clipped to uint8."""
        pixels_HWC = np.asarray(image, dtype=np.float32)
        field_HWC = np.random.default_rng(self.seed).standard_normal(
            pixels_HWC.shape, dtype=np.float32
        )
        noisy_HWC = np.rint(pixels_HWC + self.sigma * field_HWC)
        return Image.fromarray(np.clip(noisy_HWC, 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Flip:
    """Left and right exchanged."""

    def apply(self, image: Image.Image) -> Image.Image:
        """The mirrored picture."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@dataclass(frozen=True)
class Turn:
    """By quarter turns."""

    quarters: int  # 1, 2 or 3

    def apply(self, image: Image.Image) -> Image.Image:
        """The turned picture, each pixel as it was."""
        return image.transpose(_TURNS[self.quarters - 1])


@dataclass(frozen=True)
class Colour:
    """Exposure, contrast, white balance and saturation, as a darkroom would change them."""

    gamma: float
    gain_C: tuple[float, float, float]  # noqa: N815  the suffix is the tensor's shape
    saturation: float  # 0 is grey, 1 as it was

    def apply(self, image: Image.Image) -> Image.Image:
        """The recoloured picture, rounded and clipped to uint8."""
        light_HWC = (np.asarray(image, dtype=np.float32) / 255) ** np.float32(self.gamma)
        light_HWC *= np.array(self.gain_C, dtype=np.float32)
        grey_HW1 = light_HWC @ _LUMA_C1
        mixed_HWC = grey_HW1 + (light_HWC - grey_HW1) * np.float32(self.saturation)
        return Image.fromarray(np.clip(np.rint(mixed_HWC * 255), 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Jpeg:
    """One trip through JPEG."""

    quality: int
    subsampling: str  # 4:4:4 or 4:2:0

    def apply(self, image: Image.Image) -> Image.Image:
        """The picture as the decoder gives it back."""
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self.quality, subsampling=self.subsampling)
        return Image.open(buffer).convert("RGB")


@dataclass(frozen=True)
class Webp:
    """One trip through lossy WebP."""

    quality: int

    def apply(self, image: Image.Image) -> Image.Image:
        """The picture as the decoder gives it back."""
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=self.quality, method=2)
        return Image.open(buffer).convert("RGB")
