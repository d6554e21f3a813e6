"""Augmentation of a training crop, the same for real and generated pictures.

The operations are drawn first, as a ``Plan``: a function of the options, the picture's size and
the random generator, which never sees pixels or class. So neither format nor size nor encoder can
tell the class, and the two pictures of a pair, which share size and seed, share every draw. A crop
is cut at random from a re-encoded margin: its 8-pixel grid then lies anywhere, as in a file that
somebody has cropped.
"""

import io
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import PREPROCESS_VERSION, crop_image
from trainer.config import AugmentConfig, ResizeFilter

_GRID_PX = 8
_SUBSAMPLING = ("4:4:4", "4:2:0")
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
        return image.resize((self.side_px, self.side_px), Image.Resampling[self.resampling.upper()])


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
        return _recoded(image, "JPEG", quality=self.quality, subsampling=self.subsampling)


@dataclass(frozen=True)
class Webp:
    """One trip through lossy WebP."""

    quality: int

    def apply(self, image: Image.Image) -> Image.Image:
        """The picture as the decoder gives it back."""
        return _recoded(image, "WEBP", quality=self.quality, method=2)


def _recoded(image: Image.Image, encoder: str, **options: int | str) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, encoder, **options)
    return Image.open(buffer).convert("RGB")


@dataclass(frozen=True)
class Plan:
    """Everything that will happen to one crop."""

    top_px: int  # where the native region is cut
    left_px: int
    side_px: int
    operations: tuple[Operation, ...]
    offset_px: tuple[int, int]  # of the crop in the region, after all operations


def augmented_crop(
    pixels_HWC: NDArray[np.uint8],
    crop_px: int,
    config: AugmentConfig,
    random: np.random.Generator,
) -> NDArray[np.uint8]:
    """One crop; the same generator state gives the same draws on a picture of the same size."""
    height_px, width_px = pixels_HWC.shape[:2]
    plan = draw_plan(config, crop_px, (height_px, width_px), random)
    region_HWC = pixels_HWC[
        plan.top_px : plan.top_px + plan.side_px, plan.left_px : plan.left_px + plan.side_px
    ]
    # A picture that is smaller than the region is padded by reflection.
    image = Image.fromarray(center_crop(region_HWC, plan.side_px))
    for operation in plan.operations:
        image = operation.apply(image)
    top, left = plan.offset_px
    return np.asarray(image)[top : top + crop_px, left : left + crop_px]


def draw_plan(
    config: AugmentConfig, crop_px: int, size_px: tuple[int, int], random: np.random.Generator
) -> Plan:
    """What happens to one crop of a picture of a size (height, width)."""
    margin_px = crop_px + _GRID_PX
    # Options that are off draw nothing: what others draw does not depend on which exist.
    if config.chain_p and random.random() < config.chain_p:
        return _chain(config, margin_px, size_px, random)
    factor = 1.0
    if random.random() < config.resize_p:
        factor = random.uniform(config.resize_min, config.resize_max)
    resampling = _resampling(config, random)
    side_px = round(margin_px / factor)
    top, left = _place(size_px, side_px, random)
    operations: list[Operation] = [Resize(margin_px, resampling)]
    if random.random() < config.blur_p:
        operations.append(Blur(random.uniform(0.0, config.blur_sigma_max)))
    operations += _posed(config, random)
    if config.noise_p and random.random() < config.noise_p:
        operations.append(_noise(config, random))
    operations += _recoding(config, random)
    return Plan(top, left, side_px, tuple(operations), _offset(random))


def _chain(
    config: AugmentConfig, margin_px: int, size_px: tuple[int, int], random: np.random.Generator
) -> Plan:
    """Several operations in random order; the last resize ends at the margin's size.

    Each stage's scale is drawn relative to the native pixels and not to the stage before, so that
    no chain needs more of a picture than a single resize: a picture that is small for its class
    would otherwise be padded more often.
    """
    names, weights = zip(*config.chain_weights.items(), strict=True)
    count = int(random.integers(2, config.chain_max + 1))
    drawn = random.choice(len(names), size=count, p=np.array(weights) / sum(weights))
    kinds = [names[index] for index in drawn]
    scales = random.uniform(config.resize_min, config.resize_max, size=count)
    resizes = [at for at, kind in enumerate(kinds) if kind == "resize"]
    last_scale = float(scales[resizes[-1]]) if resizes else 1.0
    operations = _posed(config, random)
    for kind, scale in zip(kinds, scales, strict=True):
        side_px = round(margin_px * float(scale) / last_scale)
        operations.append(_operation(kind, side_px, config, random))
    side_px = round(margin_px / last_scale)
    top, left = _place(size_px, side_px, random)
    return Plan(top, left, side_px, tuple(operations), _offset(random))


def _posed(config: AugmentConfig, random: np.random.Generator) -> list[Operation]:
    """How a picture is held and lit, which has nothing to do with what made it."""
    operations: list[Operation] = [Flip()] if random.random() < config.flip_p else []
    if config.turn_p and random.random() < config.turn_p:
        operations.append(Turn(int(random.integers(1, 4))))
    if config.colour_p and random.random() < config.colour_p:
        red, green, blue, gamma, saturation = (
            1 + float(change) for change in config.colour_max * random.uniform(-1, 1, size=5)
        )
        operations.append(Colour(gamma, (red, green, blue), saturation))
    return operations


def _operation(
    kind: str, side_px: int, config: AugmentConfig, random: np.random.Generator
) -> Operation:
    match kind:
        case "resize":
            return Resize(side_px, _resampling(config, random))
        case "blur":
            return Blur(random.uniform(0.0, config.blur_sigma_max))
        case "noise":
            return _noise(config, random)
        case "jpeg":
            quality, subsampling = _coding(config, random)
            return Jpeg(quality, subsampling)
        case _:
            return Webp(_coding(config, random)[0])


def _resampling(config: AugmentConfig, random: np.random.Generator) -> ResizeFilter:
    return config.resize_filters[random.integers(len(config.resize_filters))]


def _noise(config: AugmentConfig, random: np.random.Generator) -> Noise:
    return Noise(random.uniform(0.0, config.noise_sigma_max), int(random.integers(2**32)))


def _recoding(config: AugmentConfig, random: np.random.Generator) -> list[Operation]:
    draw = random.random()
    quality, subsampling = _coding(config, random)
    if draw < config.jpeg_p:
        return [Jpeg(quality, subsampling)]
    return [Webp(quality)] if draw < config.jpeg_p + config.webp_p else []


def _coding(config: AugmentConfig, random: np.random.Generator) -> tuple[int, str]:
    quality = int(random.integers(config.quality_min, config.quality_max + 1))
    return quality, _SUBSAMPLING[random.integers(len(_SUBSAMPLING))]


def _place(size_px: tuple[int, int], side_px: int, random: np.random.Generator) -> tuple[int, int]:
    """Top and left of a random square of native pixels."""
    top, left = (int(random.integers(0, max(0, length - side_px) + 1)) for length in size_px)
    return top, left


def _offset(random: np.random.Generator) -> tuple[int, int]:
    top, left = (int(offset) for offset in random.integers(0, _GRID_PX + 1, size=2))
    return top, left


def center_crop(pixels_HWC: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """The central crop [S, S, 3] of native pixels, as a worker would cut it."""
    spec = PreprocessSpec(version=PREPROCESS_VERSION, crop_policy="center", crop_px=side_px)
    crop_HWC: NDArray[np.uint8] = crop_image(pixels_HWC, spec)[0]
    return crop_HWC
