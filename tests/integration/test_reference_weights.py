"""The weights beside the shipped bundle are the bundle's: a training may start from them."""

from pathlib import Path

import numpy as np

from trainer.config import DetectorConfig
from trainer.detector import Detector, classifier
from trainer.training.checkpoint import read_initial_weights

REFERENCE = Path(__file__).parents[2] / "engines" / "bundles" / "reference"


def test_they_give_the_golden_outputs() -> None:
    """Within the tolerance of the bundle's manifest; ``load_into`` proves it too."""
    start = read_initial_weights(REFERENCE)
    assert start.bundle is not None
    manifest, golden = start.bundle
    mean, std = manifest.input.mean, manifest.input.std
    detector = Detector(DetectorConfig(mean=mean, std=std))
    start.load_into(detector)
    logit_K = classifier(detector.eval())(golden.image_NHWC)
    assert np.abs(logit_K - golden.logit_K).max() <= manifest.tolerances["fp32"]
    assert start.seen.saw("sdxl")
    assert not start.seen.saw("imagen")
