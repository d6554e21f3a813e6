"""Pictures and logits in miniature, for the tests of evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.bundle.manifest import OperatingPoint, PreprocessSpec, ThresholdSet
from engines.preprocess import PREPROCESS_VERSION
from trainer.data.dataset import Picture
from trainer.data.files import Source
from trainer.evaluation.calibration import Deployment
from trainer.evaluation.scoring import ScoredPictures

SPEC = PreprocessSpec(version=PREPROCESS_VERSION, crop_policy="center", crop_px=32)


def flat(label: int, folder: str, level: int, name: str = "p.png", size_px: int = 40) -> Picture:
    """A picture of one grey level, without a file."""
    pixels_HWC = np.full((size_px, size_px, 3), level, dtype=np.uint8)
    return Picture(Source(Path(name), label, folder, ""), pixels_HWC)


def noisy(random: np.random.Generator, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Soft colours with grain."""
    coarse = Image.fromarray(random.integers(40, 210, (4, 4, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((width_px, height_px), Image.Resampling.BICUBIC))
    grain = random.normal(0, 6, soft.shape)
    return (soft + grain).clip(0, 255).astype(np.uint8)


def stored(root: Path, label: int, folder: str, name: str, pixels: NDArray[np.uint8]) -> Picture:
    """A picture with its file, whose suffix says the format."""
    path = root / ("fake" if label else "real") / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=80)  # a PNG has no quality, and ignores it
    return Picture(Source(path, label, folder, ""), np.asarray(Image.open(path).convert("RGB")))


def scored(
    reals: Mapping[str, Sequence[float]], fakes: Mapping[str, Sequence[float]]
) -> ScoredPictures:
    """Logits by class and folder."""
    pictures, logits = [], []
    for label, folders in ((0, reals), (1, fakes)):
        for folder, values in folders.items():
            for index, value in enumerate(values):
                pictures.append(flat(label, folder, 0, f"{index}.png"))
                logits.append(value)
    return ScoredPictures(tuple(pictures), np.array(logits, dtype=np.float32))


def deployed(**sets: tuple[float, float]) -> Deployment:
    """Scores that are the logistic function of the logit; sets beside the default, by name."""
    pairs = {"default": (0.5, 0.9), **sets}
    return Deployment(1.0, 0.0, tuple(threshold_set(name, *pair) for name, pair in pairs.items()))


def threshold_set(name: str, review: float, block: float) -> ThresholdSet:
    """Thresholds that were measured elsewhere."""
    points = [
        OperatingPoint(threshold=one, fpr=0.05, fpr_ci_low=0.0, fpr_ci_high=0.1, n_real=100)
        for one in (review, block)
    ]
    return ThresholdSet(id=name, review=points[0], block=points[1], measured_on="tests")
