"""What happens to a training crop, real or fake alike.

In: native pixels [H, W, 3] uint8, a random generator. Out: one crop [S, S, 3] uint8. No errors.

Every crop may be resized mildly, blurred and re-encoded, whatever its class, so that neither
format nor size nor encoder tells the class. The re-encoding is done on a margin and the crop cut
from it at random: its 8-pixel grid then lies anywhere, as in a file cropped by somebody.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from engines.manifest import PreprocessSpec
from engines.preprocess import PREPROCESS_VERSION, crop_image
from trainer.config import AugmentConfig

_GRID_PX = 8
_SUBSAMPLING = ("4:4:4", "4:2:0")
_RESAMPLING = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)


def augmented_crop(
    pixels_HWC: NDArray[np.uint8],
    crop_px: int,
    config: AugmentConfig,
    random: np.random.Generator,
) -> NDArray[np.uint8]:
    """One crop; the same generator state gives the same draws on a picture of the same size."""
    margin_px = crop_px + _GRID_PX
    factor = 1.0
    if random.random() < config.resize_p:
        factor = random.uniform(config.resize_min, config.resize_max)
    resampling = _RESAMPLING[random.integers(len(_RESAMPLING))]
    image = Image.fromarray(_native_region(pixels_HWC, round(margin_px / factor), random))
    if image.width != margin_px:
        image = image.resize((margin_px, margin_px), resampling)
    if random.random() < config.blur_p:
        sigma_px = random.uniform(0.0, config.blur_sigma_max)
        image = image.filter(ImageFilter.GaussianBlur(sigma_px))
    if random.random() < config.flip_p:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = _recoded(image, config, random)
    top, left = (int(one) for one in random.integers(0, _GRID_PX + 1, size=2))
    return np.asarray(image)[top : top + crop_px, left : left + crop_px]


def _native_region(
    pixels_HWC: NDArray[np.uint8], side_px: int, random: np.random.Generator
) -> NDArray[np.uint8]:
    """A random square of native pixels, padded by reflection where the picture is smaller."""
    top, left = (
        int(random.integers(0, max(0, length - side_px) + 1)) for length in pixels_HWC.shape[:2]
    )
    region_HWC = pixels_HWC[top : top + side_px, left : left + side_px]
    return center_crop(region_HWC, side_px)


def center_crop(pixels_HWC: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """The central crop [S, S, 3] of native pixels, as a worker would cut it."""
    spec = PreprocessSpec(version=PREPROCESS_VERSION, crop_policy="center", crop_px=side_px)
    crop_HWC: NDArray[np.uint8] = crop_image(pixels_HWC, spec)[0]
    return crop_HWC


def _recoded(image: Image.Image, config: AugmentConfig, random: np.random.Generator) -> Image.Image:
    draw = random.random()
    quality = int(random.integers(config.quality_min, config.quality_max + 1))
    subsampling = _SUBSAMPLING[random.integers(len(_SUBSAMPLING))]
    if draw < config.jpeg_p:
        return recode_jpeg(image, quality, subsampling)
    if draw < config.jpeg_p + config.webp_p:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=2)
        return Image.open(buffer).convert("RGB")
    return image


def recode_jpeg(image: Image.Image, quality: int, subsampling: str) -> Image.Image:
    """The image after one trip through JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(buffer).convert("RGB")
