"""What is deployed with a detector: how a logit becomes a score, and the threshold sets.

In: a calibration and threshold sets, of ``calibrate.json`` or of a bundle's manifest. Out:
``Shipped``. No errors. Nothing here is fitted: an evaluation judges what was shipped.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.bundle.manifest import OperatingPoint, ThresholdSet
from trainer.evaluation.calibration import sigmoid
from trainer.evaluation.resampling import Logits


@dataclass(frozen=True)
class Shipped:
    """score = sigmoid(scale * logit + bias), and the threshold sets, the default one first."""

    scale: float
    bias: float
    sets: tuple[ThresholdSet, ...]

    @property
    def default(self) -> ThresholdSet:
        """The set that decides where nobody names one."""
        return self.sets[0]

    def score(self, logit_N: Logits) -> NDArray[np.float64]:
        """P(generated) of each logit."""
        return sigmoid(self.scale * logit_N.astype(np.float64) + self.bias)


def points(thresholds: ThresholdSet) -> dict[str, OperatingPoint]:
    """The operating points of a set, in the order of how strict they are."""
    return {"review": thresholds.review, "block": thresholds.block}
