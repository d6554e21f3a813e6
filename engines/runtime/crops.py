"""What holds of every batch and of every answer, whichever runtime gives it; pure."""

import numpy as np
from numpy.typing import NDArray

from engines.manifest import InputSpec
from engines.runtime.protocol import RuntimeFailure

_RGB_CHANNELS = 3


def crop_shape(spec: InputSpec) -> tuple[int, int, int]:
    """(H, W, 3)."""
    return (spec.height_px, spec.width_px, _RGB_CHANNELS)


def check_crops(image_NHWC: NDArray[np.uint8], spec: InputSpec) -> None:
    """Refuses, by ``ValueError``, what is no batch of uint8 crops that the bundle takes."""
    expected = crop_shape(spec)
    if image_NHWC.dtype != np.uint8 or image_NHWC.shape[1:] != expected:
        raise ValueError(
            f"expected uint8 crops [N, {', '.join(map(str, expected))}], "
            f"got {image_NHWC.dtype} {list(image_NHWC.shape)}"
        )
    if not 1 <= len(image_NHWC) <= spec.batch_max:
        raise ValueError(
            f"{len(image_NHWC)} crops in a batch; this bundle takes 1 to {spec.batch_max}: split it"
        )


def check_logits(logit_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits, if each is finite; else ``RuntimeFailure``, which names the crops."""
    if not np.isfinite(logit_N).all():
        where = np.flatnonzero(~np.isfinite(logit_N)).tolist()
        raise RuntimeFailure(f"the logit of crop {where} of the batch is not finite")
    return logit_N
