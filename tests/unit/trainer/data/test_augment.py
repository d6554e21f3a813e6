"""Augmentation treats both classes alike, pairs share every draw, and a plan sees no pixels."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from scipy.stats import chi2_contingency  # type: ignore[import-untyped]  # scipy ships no types

from tests.support.trainer import TINY
from trainer.config import AugmentConfig, parse_config
from trainer.data import batches as batches_module
from trainer.data.augment import (
    Blur,
    Colour,
    Flip,
    Jpeg,
    Noise,
    Plan,
    Resize,
    Webp,
    augmented_crop,
    center_crop,
    draw_plan,
)
from trainer.data.batches import Batches
from trainer.data.dataset import Picture
from trainer.data.files import Source
from trainer.data.pairs import Pair

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


FIELD = AugmentConfig(
    resize_min=0.5, resize_max=1.5, noise_p=0.3, blur_p=0.3, chain_p=0.6, chain_max=5
)
SIZE_PX = (400, 500)


def plan(seed: int, config: AugmentConfig = FIELD, size_px: tuple[int, int] = SIZE_PX) -> Plan:
    """The plan of one seed for a crop of 64 px."""
    return draw_plan(config, 64, size_px, np.random.default_rng(seed))


def kinds(one: Plan) -> list[str]:
    """The operations of a plan, by name."""
    return [type(operation).__name__ for operation in one.operations]


def test_a_plan_is_a_function_of_the_seed_and_the_size() -> None:
    """Equal seeds give equal plans, whatever the picture shows; other seeds give others."""
    assert [plan(seed) for seed in range(30)] == [plan(seed) for seed in range(30)]
    assert len({plan(seed) for seed in range(30)}) == 30


def test_options_that_are_off_draw_nothing() -> None:
    """How a chain or a noise would be does not move the draws of a run without them."""
    plain = AugmentConfig()
    other = AugmentConfig(chain_max=8, noise_sigma_max=99.0)
    assert [plan(seed, plain) for seed in range(20)] == [plan(seed, other) for seed in range(20)]


def test_chains_hold_every_operation_in_any_order_and_again() -> None:
    """Two to ``chain_max`` of them: resized after coding, coded twice, resized twice."""
    chains = [kinds(plan(seed, FIELD.model_copy(update={"chain_p": 1.0}))) for seed in range(2000)]
    bare = [[kind for kind in chain if kind != "Flip"] for chain in chains]
    assert {len(chain) for chain in bare} == {2, 3, 4, 5}
    assert {kind for chain in bare for kind in chain} == {"Resize", "Blur", "Noise", "Jpeg", "Webp"}
    assert ["Resize", "Jpeg", "Resize", "Jpeg"] in [chain[:4] for chain in bare]
    assert any(chain.count("Jpeg") > 1 for chain in bare)
    assert any(chain[:2] == ["Jpeg", "Resize"] for chain in bare)


@pytest.mark.parametrize("seed", range(40))
def test_no_chain_needs_more_of_a_picture_than_one_resize(seed: int) -> None:
    """The region is at most the margin over ``resize_min``; the last size is the margin's."""
    drawn = plan(seed, FIELD.model_copy(update={"chain_p": 1.0}))
    assert 72 / 1.5 - 1 <= drawn.side_px <= 72 / 0.5
    resizes = [one for one in drawn.operations if isinstance(one, Resize)]
    assert not resizes or resizes[-1].side_px == 72
    assert all(72 / 3 - 1 <= one.side_px <= 72 * 3 + 1 for one in resizes)
    pixels_HWC = np.random.default_rng(seed).integers(0, 256, (90, 400, 3), dtype=np.uint8)
    chained = FIELD.model_copy(update={"chain_p": 1.0})
    crop_HWC = augmented_crop(pixels_HWC, 64, chained, np.random.default_rng(seed))
    assert crop_HWC.shape == (64, 64, 3)
    assert crop_HWC.dtype == np.uint8


def test_every_number_lies_within_its_option() -> None:
    """Qualities, strengths and filters are those of the configuration."""
    config = FIELD.model_copy(update={"resize_filters": ("box", "nearest"), "quality_min": 80})
    for operation in (one for seed in range(300) for one in plan(seed, config).operations):
        match operation:
            case Jpeg(quality=quality) | Webp(quality=quality):
                assert 80 <= quality <= 100
            case Resize(resampling=resampling):
                assert resampling in {"box", "nearest"}
            case Blur(sigma_px=sigma_px):
                assert 0 <= sigma_px <= config.blur_sigma_max
            case Noise(sigma=sigma):
                assert 0 <= sigma <= config.noise_sigma_max
            case _:
                assert isinstance(operation, Flip)


def test_a_pair_gets_the_same_noise() -> None:
    """The field is drawn once for both: their difference stays."""
    noisy = AugmentConfig(
        flip_p=0.5, resize_p=0, blur_p=0, jpeg_p=0, webp_p=0, noise_p=1.0, noise_sigma_max=8
    )
    grey_HWC = np.full((100, 100, 3), 110, dtype=np.uint8)
    real, fake = (
        augmented_crop(one, 48, noisy, np.random.default_rng(3)).astype(int)
        for one in (grey_HWC, grey_HWC + 20)
    )
    assert (fake - real == 20).all()
    assert 0.5 < real.std() < 8
    assert abs(real.mean() - 110) < 0.2


def _plans_by_label(monkeypatch: pytest.MonkeyPatch, paired_share: float) -> dict[int, list[Plan]]:
    """What ``Batches`` really applied to the crops of each class, over 40 steps."""
    found: dict[int, list[Plan]] = {0: [], 1: []}

    def noted(
        pixels_HWC: np.ndarray, crop_px: int, config: AugmentConfig, random: np.random.Generator
    ) -> np.ndarray:
        size_px = (pixels_HWC.shape[0], pixels_HWC.shape[1])
        found[int(pixels_HWC[0, 0, 0])].append(draw_plan(config, crop_px, size_px, random))
        return pixels_HWC[:crop_px, :crop_px]

    monkeypatch.setattr(batches_module, "augmented_crop", noted)
    blank = [np.full((*SIZE_PX, 3), label, dtype=np.uint8) for label in (0, 1)]
    pictures = [
        Picture(Source(Path(f"{label}.png"), label, "a", ""), blank[label]) for label in (0, 1)
    ]
    pairs = [Pair("real/a/0.png", blank[0], blank[1], "one")]
    config = parse_config(TINY.replace("batch = 8", "batch = 40").encode(), {})
    config = config.model_copy(
        update={
            "augment": FIELD,
            "teacher": config.teacher.model_copy(update={"repeat_epochs": 0}),  # no crop recurs
            "train": config.train.model_copy(update={"paired_share": paired_share}),
        }
    )
    batches = Batches(pictures, pairs, config)
    for step in range(40):
        batches.at(step)
    return found


def test_the_two_of_a_pair_have_one_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through ``Batches``: every operation, number and place is shared."""
    found = _plans_by_label(monkeypatch, paired_share=1.0)
    assert found[0] == found[1]
    assert len(found[0]) == 800


def test_real_and_fake_see_the_same_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn apart, 800 crops of a class get each operation, and each count, as often."""
    found = _plans_by_label(monkeypatch, paired_share=0.0)
    assert not set(found[0]) & set(found[1])
    for of in (kinds, lambda one: [len(one.operations)], lambda one: kinds(one)[-1:]):
        counts = [
            Counter(str(name) for one in found[label] for name in of(one)) for label in (0, 1)
        ]
        names = sorted(counts[0] | counts[1])
        table = [[one[name] + 1 for name in names] for one in counts]
        assert chi2_contingency(table).pvalue > 0.01
    sides = [np.array([one.side_px for one in found[label]]) for label in (0, 1)]
    assert abs(sides[0].mean() - sides[1].mean()) < 3 * sides[0].std() * (2 / 800) ** 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize_p": 0, "blur_p": 0, "jpeg_p": 0, "webp_p": 0, "chain_p": 0.5}, "chain_p needs"),
        ({"resize_min": 2.0}, "above its maximum"),
        ({"jpeg_p": 0.8, "webp_p": 0.3}, "must not exceed 1"),
        ({"resize_filters": ()}, "at least 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, object], message: str
) -> None:
    """The message names them."""
    with pytest.raises(ValidationError, match=message):
        AugmentConfig.model_validate(options)
