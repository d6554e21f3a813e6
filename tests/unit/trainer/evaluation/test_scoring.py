"""Pictures are cropped as a worker does, aligned alike, and changed by name in the same way."""

from pathlib import Path

import numpy as np
import pytest

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import PREPROCESS_VERSION
from tests.unit.trainer.evaluation.pictures import noisy
from trainer.config import EvaluationConfig, EvaluationPairsConfig
from trainer.data.dataset import Picture
from trainer.data.files import Source
from trainer.errors import ConfigError
from trainer.evaluation.metrics import evaluate_split
from trainer.evaluation.probes import blockiness
from trainer.evaluation.scoring import change_of, resized_crops, score

SPEC = PreprocessSpec(version=PREPROCESS_VERSION, crop_policy="center", crop_px=16)


def test_the_logit_of_a_picture_is_the_mean_over_its_crops() -> None:
    """Four crops of different level give one logit."""
    grid = SPEC.model_copy(update={"crop_policy": "grid", "max_crops": 4})
    pixels_HWC = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels_HWC[:16, :16] = 200
    one = Picture(Source(Path("p.png"), 0, "r", ""), pixels_HWC)
    found = score(lambda crops: crops.mean(axis=(1, 2, 3)), [one], grid, "native")
    assert found.logit_N[0] == pytest.approx(50)


def test_bundles_of_other_crops_are_aligned_at_one_size() -> None:
    """Four crops of 16 px are the quarters of the one of 32 px: the same pixels are judged."""
    random = np.random.default_rng(0)
    pixels_HWC = random.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    one = SPEC.model_copy(update={"crop_px": 32})
    four = SPEC.model_copy(update={"crop_policy": "grid", "max_crops": 4})
    whole_HWC = resized_crops(pixels_HWC, one)[0]
    upper, lower = np.split(resized_crops(pixels_HWC, four), 2)
    rows = [np.concatenate(list(half), axis=1) for half in (upper, lower)]
    assert np.array_equal(np.concatenate(rows), whole_HWC)


def test_alignment_reencodes_both_classes() -> None:
    """Noise passes the native condition untouched and the aligned one changed, real and fake."""
    random = np.random.default_rng(0)
    noisy_HWC = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    both = [Picture(Source(Path("p.png"), label, "x", ""), noisy_HWC) for label in (0, 1)]
    seen: list[np.ndarray] = []

    def infer(image_NHWC: np.ndarray) -> np.ndarray:
        seen.append(image_NHWC[0])
        return np.zeros(len(image_NHWC), dtype=np.float32)

    evaluate_split(infer, both, SPEC)
    assert all((one == noisy_HWC).all() for one in seen[:2])
    assert all((one != noisy_HWC).any() for one in seen[2:])
    assert (seen[2] == seen[3]).all()


PICTURE = noisy(np.random.default_rng(0), 80, 120)


@pytest.mark.parametrize("name", EvaluationConfig().changes)
def test_every_default_change_changes_the_picture_and_repeats(name: str) -> None:
    first, second = change_of(name)(PICTURE), change_of(name)(PICTURE)
    assert first.dtype == np.uint8
    assert (first == second).all()
    assert first.shape != PICTURE.shape or (first != PICTURE).any()


@pytest.mark.parametrize(
    ("name", "height_px", "width_px"),
    [
        ("resize0.5", 40, 60),
        ("resize1.5", 120, 180),
        ("longer60", 40, 60),
        ("jpeg50", 80, 120),
        ("resize0.5+resize0.5", 20, 30),
    ],
)
def test_resizing_keeps_the_aspect(name: str, height_px: int, width_px: int) -> None:
    assert change_of(name)(PICTURE).shape == (height_px, width_px, 3)


def test_a_lower_quality_is_further_from_the_picture() -> None:
    """The order of the curve's points is the order of what is lost."""
    lost = [
        np.abs(change_of(name)(PICTURE).astype(int) - PICTURE).mean()
        for name in ("jpeg95", "jpeg75", "jpeg30")
    ]
    assert lost[0] < lost[1] < lost[2]


def test_a_chain_is_done_in_its_order() -> None:
    first, second = change_of("resize0.5+jpeg50"), change_of("jpeg50+resize0.5")
    assert (first(PICTURE) != second(PICTURE)).any()
    stepwise = change_of("jpeg50")(change_of("resize0.5")(PICTURE))
    assert (first(PICTURE) == stepwise).all()


def test_a_margin_shifts_the_grid_of_an_earlier_jpeg() -> None:
    """Ten per cent of 80 and 160 px would be whole blocks: then the cut is moved off the grid."""
    coded = change_of("jpeg30")(noisy(np.random.default_rng(1), 80, 160))
    cut = change_of("margin0.1")(coded)
    assert blockiness(coded)[0] > 0.1
    assert blockiness(cut)[0] < blockiness(coded)[0] / 2
    assert blockiness(cut)[1] > 0.1  # it is still there, elsewhere


def test_an_unknown_change_is_refused_by_the_configuration() -> None:
    with pytest.raises(ValueError, match="unknown change 'sharpen2'"):
        EvaluationConfig(changes=("jpeg90+sharpen2",))
    assert issubclass(ConfigError, Exception)
    assert EvaluationPairsConfig().roots == ()
