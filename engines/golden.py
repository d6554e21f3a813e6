"""The golden file of a bundle: inputs with the trainer's reference outputs.

In: ``golden.npz``. Out: a ``Golden``. Errors: ``BundleError``.

It holds crops with their logits (is the runtime right?) and encoded files with theirs (is the
whole way right, from bytes through decoding and cropping to the logit?).
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.manifest import BundleError

_RGB_CHANNELS = 3
_IMAGE_DIMENSIONS = 4


@dataclass(frozen=True)
class Golden:
    """Inputs and reference outputs.

    Attributes:
        image_NHWC: uint8 [K, S, S, 3], the crops.
        logit_K: float32 [K], the reference logit of each crop.
        encoded: M files as they would be uploaded (JPEG, PNG, WebP ...).
        encoded_logit_M: float32 [M], the mean reference logit over each file's crops.
    """

    image_NHWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    logit_K: NDArray[np.float32]  # noqa: N815  the suffix is the tensor's shape
    encoded: tuple[bytes, ...]
    encoded_logit_M: NDArray[np.float32]  # noqa: N815  the suffix is the tensor's shape

    def __post_init__(self) -> None:
        """Refuses arrays of another shape or type, and a golden that would check nothing."""
        image, logit, encoded_logit = self.image_NHWC, self.logit_K, self.encoded_logit_M
        if image.dtype != np.uint8 or image.ndim != _IMAGE_DIMENSIONS:
            raise BundleError("golden: image_NHWC must be uint8 [K, S, S, 3]: export it again")
        if image.shape[0] == 0 or image.shape[3] != _RGB_CHANNELS:
            raise BundleError("golden: image_NHWC must hold one crop or more, in RGB")
        if logit.dtype != np.float32 or logit.shape != (image.shape[0],):
            raise BundleError("golden: logit_K must be float32, one for each of image_NHWC")
        if encoded_logit.dtype != np.float32 or encoded_logit.shape != (len(self.encoded),):
            raise BundleError("golden: encoded_logit_M must be float32, one for each encoded file")
        if not self.encoded:
            raise BundleError("golden: it must hold one encoded file or more")
        if not (np.isfinite(logit).all() and np.isfinite(encoded_logit).all()):
            raise BundleError("golden: a reference logit is not finite: export it again")


def write_golden(path: Path, golden: Golden) -> None:
    """Write the golden file; the same content gives the same bytes."""
    arrays: dict[str, NDArray[np.uint8] | NDArray[np.float32]] = {
        "image_NHWC": golden.image_NHWC,
        "logit_K": golden.logit_K,
        "encoded_logit_M": golden.encoded_logit_M,
    }
    for index, data in enumerate(golden.encoded):
        arrays[f"encoded_{index}"] = np.frombuffer(data, dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    path.write_bytes(buffer.getvalue())


def read_golden(data: bytes) -> Golden:
    """Read a golden file from its bytes; nothing in it is ever unpickled."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            encoded_logit = arrays["encoded_logit_M"]
            return Golden(
                image_NHWC=arrays["image_NHWC"],
                logit_K=arrays["logit_K"],
                encoded=tuple(
                    arrays[f"encoded_{index}"].astype(np.uint8, casting="no").tobytes()
                    for index in range(encoded_logit.size)
                ),
                encoded_logit_M=encoded_logit,
            )
    # What numpy's and zipfile's readers raise on bytes that are no archive of plain arrays.
    except (
        AttributeError,  # one bare array instead of an archive
        EOFError,
        KeyError,
        NotImplementedError,
        OSError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise BundleError(f"the golden file cannot be read ({error}): export it again") from error
