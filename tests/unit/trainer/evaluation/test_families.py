"""Evaluation counts each class and each family apart, and cuts as a worker does."""

from pathlib import Path

import numpy as np
import pytest

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import PREPROCESS_VERSION
from trainer.data.dataset import Picture
from trainer.data.files import Source
from trainer.evaluation.metrics import evaluate_split, family_results, split_result
from trainer.evaluation.scoring import ScoredPictures, resized_crops, score

SPEC = PreprocessSpec(version=PREPROCESS_VERSION, crop_policy="center", crop_px=16)


def picture(label: int, folder: str, level: int, size_px: int = 32) -> Picture:
    """A flat picture."""
    pixels_HWC = np.full((size_px, size_px, 3), level, dtype=np.uint8)
    return Picture(Source(Path("p.png"), label, folder, ""), pixels_HWC)


def scored(real: list[float], **fakes: list[float]) -> ScoredPictures:
    """Logits by folder."""
    pictures = [picture(0, "r", 0) for _ in real]
    pictures += [picture(1, name, 0) for name, logits in fakes.items() for _ in logits]
    logits = [*real, *(one for logits in fakes.values() for one in logits)]
    return ScoredPictures(tuple(pictures), np.array(logits, dtype=np.float32))


def test_families_are_judged_apart() -> None:
    """One perfect family, one that is told no better than by chance."""
    results = family_results(scored([-2, -1, 1], good=[3, 4], bad=[-1.5, 2]), "native")
    bad, good = results
    assert (good.generator, good.auc, good.ap) == ("good", 1.0, 1.0)
    assert good.fake_accuracy == 1.0
    assert good.real_accuracy == pytest.approx(2 / 3)
    assert good.accuracy_at_half == pytest.approx(4 / 5)
    assert bad.auc == pytest.approx(4 / 6)
    assert bad.fake_accuracy == 0.5


def test_the_mean_counts_families_and_the_worst_is_named() -> None:
    """A family of many images weighs no more than one of few."""
    results = family_results(scored([0.0], many=[1] * 9, few=[-1]), "native")
    summary = split_result(results)
    assert summary.mean_auc == {"native": 0.5}
    assert summary.worst_generator == {"native": "few"}


def test_without_real_images_there_is_no_result() -> None:
    """A split of one class says nothing, rather than something wrong."""
    assert family_results(scored([], x=[1.0]), "native") == []
    assert split_result([]).mean_auc == {}


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
