"""Targets are computed once, belong to their very pixels, and are standardised over the data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.config import TeacherConfig
from trainer.training.targets import TargetStore, explained_variance, measure, standardise

CONFIG = TeacherConfig(kind="random-tiny", tile_px=32, tile_overlap_px=8, batch=2)


class Doubling:
    """A teacher whose noise is twice the picture, and that counts what it is asked."""

    channels, stride = 3, 1

    def __init__(self, name: str = "doubling") -> None:
        self.teacher_id = name
        self.asked = 0

    def noise(self, x_BCHW: Tensor, seeds_B: list[int]) -> Tensor:
        """2 x."""
        assert len(seeds_B) == len(x_BCHW)
        self.asked += len(x_BCHW)
        return x_BCHW * 2


@pytest.fixture
def images() -> np.ndarray:
    """Three crops."""
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def test_a_target_is_the_noise_of_the_crop(images: np.ndarray, tmp_path: Path) -> None:
    """The teacher is given the crop on [-1, 1], channels first."""
    found = TargetStore(Doubling(), CONFIG, tmp_path).raw(images)
    expected = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.allclose(found, 2 * expected)


def test_a_target_is_computed_once(images: np.ndarray, tmp_path: Path) -> None:
    """A second store on the same folder asks nothing, and returns the same."""
    first, again = Doubling(), Doubling()
    expected = TargetStore(first, CONFIG, tmp_path).raw(images)
    assert first.asked == 3
    assert torch.equal(TargetStore(again, CONFIG, tmp_path).raw(images), expected)
    assert again.asked == 0


def test_a_changed_pixel_is_another_target(images: np.ndarray, tmp_path: Path) -> None:
    """A crop that was altered after its target was computed is not paired with it."""
    teacher = Doubling()
    store = TargetStore(teacher, CONFIG, tmp_path)
    store.raw(images[:1])
    images[0, 0, 0, 0] ^= 1
    store.raw(images[:1])
    assert teacher.asked == 2


def test_another_teacher_shares_nothing(images: np.ndarray, tmp_path: Path) -> None:
    """The teacher's id is part of the key."""
    TargetStore(Doubling(), CONFIG, tmp_path).raw(images)
    other = Doubling("other")
    TargetStore(other, CONFIG, tmp_path).raw(images)
    assert other.asked == 3


def test_the_shuffled_control_gives_another_pictures_noise(tmp_path: Path) -> None:
    """Never a crop's own nor its partner's, of either class alike, and from the same cache."""
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    teacher = Doubling()
    honest = TargetStore(teacher, CONFIG, tmp_path)
    store = TargetStore(teacher, CONFIG.model_copy(update={"control": "shuffled"}), tmp_path)
    statistics = measure(honest.raw(images))
    plain, found = (one.standardised(images, statistics) for one in (honest, store))
    source = [next(i for i in range(8) if torch.equal(one, plain[i])) for one in found]
    assert sorted(source) == list(range(8))
    assert all(mine // 2 != theirs // 2 for mine, theirs in enumerate(source))
    assert sum(mine % 2 == theirs % 2 for mine, theirs in enumerate(source)) == 4
    assert teacher.asked == 8


def test_the_highpass_control_asks_no_teacher(images: np.ndarray, tmp_path: Path) -> None:
    """It is a filter: nothing of a flat crop, and the teacher stays unasked."""
    teacher = Doubling()
    store = TargetStore(teacher, CONFIG.model_copy(update={"control": "highpass"}), tmp_path)
    assert store.raw(images).abs().mean() > 0.1
    assert torch.allclose(store.raw(np.full_like(images[:1], 90)), torch.zeros(1), atol=1e-6)
    assert teacher.asked == 0


def test_standardised_targets_have_the_statistics_of_the_data() -> None:
    """Mean 0 and variance 1 per channel over all; a single picture keeps its own level."""
    eps_BCHW = torch.randn(6, 3, 16, 16) * torch.tensor([1.0, 3.0, 9.0])[:, None, None] + 2
    eps_BCHW[0] += 5
    found = standardise(eps_BCHW, measure(eps_BCHW))
    assert torch.allclose(found.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(found.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4)
    assert found[0].mean() > found[1].mean() + 0.3


def test_explained_variance_is_one_for_truth_and_zero_for_the_mean() -> None:
    """The two ends of the scale, and the middle."""
    truth = torch.randn(4, 3, 8, 8)
    mean = truth.mean(dim=(0, 2, 3), keepdim=True).expand_as(truth)
    assert explained_variance([truth], [truth]) == pytest.approx(1)
    assert explained_variance([mean], [truth]) == pytest.approx(0, abs=1e-6)
    assert explained_variance([(truth + mean) / 2], [truth]) == pytest.approx(0.75, abs=1e-5)
