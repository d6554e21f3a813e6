"""Augmentation treats both classes alike, and pairs share every draw."""

import numpy as np
import pytest
from PIL import Image

from trainer.config import AugmentConfig
from trainer.data.augment import augmented_crop, center_crop
from trainer.data.operations import Colour

NOTHING = AugmentConfig(flip_p=0, resize_p=0, blur_p=0, jpeg_p=0, webp_p=0)


def picture(seed: int = 0, height_px: int = 100, width_px: int = 120) -> np.ndarray:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def test_without_options_a_crop_is_native_pixels() -> None:
    """With everything off, the crop is found unchanged in the picture."""
    pixels_HWC = picture()
    crop_HWC = augmented_crop(pixels_HWC, 32, NOTHING, np.random.default_rng(1))
    windows = np.lib.stride_tricks.sliding_window_view(pixels_HWC, (32, 32, 3))[:, :, 0]
    assert (windows == crop_HWC).all(axis=(2, 3, 4)).any()


@pytest.mark.parametrize("seed", range(8))
def test_the_same_seed_gives_a_pair_the_same_draws(seed: int) -> None:
    """Two pictures of a size are cut and flipped at the same place: their difference stays."""
    pixels_HWC = picture() // 2
    options = AugmentConfig(resize_p=0, blur_p=0, jpeg_p=0, webp_p=0, flip_p=0.5)
    first, second = (
        augmented_crop(one, 48, options, np.random.default_rng(seed))
        for one in (pixels_HWC, pixels_HWC + 7)
    )
    assert (second - first == 7).all()


@pytest.mark.parametrize("seed", range(20))
def test_every_draw_gives_a_crop_of_the_right_kind(seed: int) -> None:
    """Whatever is drawn, and however small the picture, the crop has its shape."""
    options = AugmentConfig(resize_p=0.8, blur_p=0.5)
    crop_HWC = augmented_crop(picture(seed, 30, 200), 64, options, np.random.default_rng(seed))
    assert crop_HWC.shape == (64, 64, 3)
    assert crop_HWC.dtype == np.uint8


def test_recoding_changes_pixels_but_little() -> None:
    """A crop through JPEG differs from the native one by artefacts alone."""
    smooth_HWC = np.broadcast_to(
        np.linspace(0, 255, 100, dtype=np.uint8)[:, None, None], (100, 100, 3)
    )
    always = NOTHING.model_copy(update={"jpeg_p": 1.0, "quality_min": 60, "quality_max": 70})
    plain, coded = (
        augmented_crop(smooth_HWC, 48, one, np.random.default_rng(5)).astype(int)
        for one in (NOTHING, always)
    )
    difference = np.abs(plain - coded)
    assert 0 < difference.max() < 40


def test_the_central_crop_is_that_of_the_worker() -> None:
    """Validation cuts the middle."""
    pixels_HWC = picture()
    assert (center_crop(pixels_HWC, 40) == pixels_HWC[30:70, 40:80]).all()


@pytest.mark.parametrize("seed", range(8))
def test_turns_and_colours_are_shared_by_a_pair(seed: int) -> None:
    """Equal pictures of either class stay equal, whatever was drawn."""
    options = AugmentConfig(turn_p=0.8, colour_p=0.8, chain_p=0.5)
    first, second = (
        augmented_crop(picture(), 48, options, np.random.default_rng(seed)) for _ in range(2)
    )
    assert (first == second).all()


def test_turns_move_pixels_and_change_none() -> None:
    """Every quarter turn occurs, and what it gives is found turned back in the picture."""
    pixels_HWC = picture()
    always = NOTHING.model_copy(update={"turn_p": 1.0})
    windows = np.lib.stride_tricks.sliding_window_view(pixels_HWC, (32, 32, 3))[:, :, 0]
    turns = set()
    for seed in range(12):
        crop_HWC = augmented_crop(pixels_HWC, 32, always, np.random.default_rng(seed))
        for quarters in range(4):
            turned_HWC = np.rot90(crop_HWC, quarters)
            if (windows == turned_HWC).all(axis=(2, 3, 4)).any():
                turns.add(quarters)
    assert turns == {1, 2, 3}


def test_colours_change_what_they_say() -> None:
    """Gains of one change nothing; no saturation is grey; a gain brightens its channel alone."""
    image = Image.fromarray(picture())
    same = np.asarray(Colour(1.0, (1.0, 1.0, 1.0), 1.0).apply(image))
    assert (same == picture()).all()
    grey_HWC = np.asarray(Colour(1.0, (1.0, 1.0, 1.0), 0.0).apply(image))
    assert (grey_HWC == grey_HWC[:, :, :1]).all()
    brighter_HWC = np.asarray(Colour(1.0, (1.2, 1.0, 1.0), 1.0).apply(image)).astype(int)
    assert (brighter_HWC[:, :, 0] >= picture()[:, :, 0]).all()
    assert (brighter_HWC[:, :, 1:] == picture()[:, :, 1:]).all()
    darker_HWC = np.asarray(Colour(1.25, (1.0, 1.0, 1.0), 1.0).apply(image))
    assert (darker_HWC <= picture()).all()
