"""Content-matched pairs: a photograph's region beside a regeneration of it.

What makes them is in ``trainer/fakes``; what draws from them, ``trainer/data/batches.py``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pair:
    """A photograph's region and one regeneration of it, uint8 [H, W, 3] of one size."""

    photograph_key: str  # the photograph's ``Source.key``: real/FOLDER/FILE
    real_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    fake_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    family: str  # what regenerated it: taef2, srgan, ...
