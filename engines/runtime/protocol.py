"""What every runtime is to its callers: crops in, logits out."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class RuntimeFailure(Exception):
    """The runtime could not give logits for a batch; the message says which and why."""


class DeviceLost(RuntimeFailure):
    """The device is gone for this process: nothing it is asked will succeed until a restart."""


class Runtime(Protocol):
    """A loaded model.

    Attributes:
        name: for instance ``onnxruntime-cpu``.
        precision: for instance ``fp32``.
        engine_sha256: SHA-256 of the very bytes of the model that it loaded.
        batch_max: the most crops that one call of ``infer`` takes.
    """

    @property
    def name(self) -> str: ...  # noqa: D102  described above

    @property
    def precision(self) -> str: ...  # noqa: D102  described above

    @property
    def engine_sha256(self) -> str: ...  # noqa: D102  described above

    @property
    def batch_max(self) -> int: ...  # noqa: D102  described above

    def infer(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits, float32 [N], of uint8 crops [N, S, S, 3], 1 <= N <= ``batch_max``.

        Raises:
            ValueError: the batch has another shape or type, or is too large: the caller's error.
            RuntimeFailure: the engine failed, or a logit is not finite.
        """
        ...

    def close(self) -> None:
        """Free the engine; ``infer`` must not be called afterwards."""
        ...
