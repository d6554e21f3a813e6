"""What is deployed with a detector: how a logit becomes a score, and the thresholds.

In: a calibration and two operating points, of ``calibrate.json`` or of a bundle's manifest. Out:
``Shipped``. No errors. Nothing here is fitted: an evaluation judges what was shipped.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.manifest import OperatingPoint
from trainer.evaluation.calibration import sigmoid
from trainer.evaluation.resampling import Logits


@dataclass(frozen=True)
class Shipped:
    """score = sigmoid(scale * logit + bias), and the two thresholds by name."""

    scale: float
    bias: float
    review: OperatingPoint
    block: OperatingPoint

    def score(self, logit_N: Logits) -> NDArray[np.float64]:
        """P(generated) of each logit."""
        return sigmoid(self.scale * logit_N.astype(np.float64) + self.bias)

    def points(self) -> dict[str, OperatingPoint]:
        """The operating points, in the order of how strict they are."""
        return {"review": self.review, "block": self.block}
