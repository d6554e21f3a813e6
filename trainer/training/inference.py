"""A detector as a function of numpy arrays, and how a worker will crop for it.

In: a detector, a configuration. Out: an ``Infer``, a ``PreprocessSpec``. No errors.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import PREPROCESS_VERSION
from trainer.config import Config
from trainer.detector import Detector


def export_spec(config: Config) -> PreprocessSpec:
    """How the worker will crop, which validation does too."""
    return PreprocessSpec(
        version=PREPROCESS_VERSION,
        crop_policy=config.export.crop_policy,
        crop_px=config.export.crop_px,
        max_crops=config.export.max_crops,
    )


def classifier(detector: Detector) -> "_Classifier":
    """The plain graph as a function of numpy arrays."""
    return _Classifier(detector, gated=False)


def gated_classifier(detector: Detector) -> "_Classifier":
    """The gated graph as a function of numpy arrays."""
    return _Classifier(detector, gated=True)


@dataclass(frozen=True)
class _Classifier:
    detector: Detector
    gated: bool

    @torch.inference_mode()
    def __call__(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        run = self.detector.classify_gated if self.gated else self.detector.classify
        device = self.detector.classifier.weight.device
        logit_N = run(torch.from_numpy(image_NHWC.copy()).to(device))
        logit: NDArray[np.float32] = logit_N.float().cpu().numpy()
        return logit
