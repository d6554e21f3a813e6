"""What will happen to a crop is drawn without a look at its pixels or class; chains keep sizes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import chi2_contingency  # type: ignore[import-untyped]  # scipy ships no types

from tests.support.trainer import TINY
from trainer.config import AugmentConfig, parse_config
from trainer.data import batches as batches_module
from trainer.data.augment import Plan, augmented_crop, draw_plan
from trainer.data.batches import Batches
from trainer.data.operations import Blur, Flip, Jpeg, Noise, Resize, Webp
from trainer.data.pairs import Pair
from trainer.data.sources import Picture, Source

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
