"""The golden file of a bundle, and how far a runtime is from it.

In: ``golden.npz``, an open runtime. Out: a ``Golden``; logits and their largest difference.
Errors: ``BundleError`` for a broken file, and for a runtime that fails or is over the tolerance.

The file holds inputs with the trainer's reference outputs: crops, which test the runtime, and encoded
files, which test decoding and cropping too.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.bundle.manifest import MANIFEST_FILE, BundleError, Manifest
from engines.preprocess import ImageError, Limits, prepare
from engines.runtime import Runtime, RuntimeFailure

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
        """Refuse arrays of another shape or type, and a file that would check nothing."""
        image, logit, encoded_logit = self.image_NHWC, self.logit_K, self.encoded_logit_M
        if image.dtype != np.uint8 or image.ndim != _IMAGE_DIMENSIONS:
            raise BundleError("golden: image_NHWC must be uint8 [K, S, S, 3]: export it again")
        if image.shape[0] == 0 or image.shape[3] != _RGB_CHANNELS:
            raise BundleError("golden: image_NHWC must hold at least one RGB crop: export it again")
        if logit.dtype != np.float32 or logit.shape != (image.shape[0],):
            raise BundleError("golden: logit_K must be float32, one for each crop: export it again")
        if encoded_logit.dtype != np.float32 or encoded_logit.shape != (len(self.encoded),):
            raise BundleError(
                "golden: encoded_logit_M must be float32, one for each file: export it again"
            )
        if not self.encoded:
            raise BundleError("golden: it must hold at least one encoded file: export it again")
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
    """Read a golden file from its bytes, without unpickling anything."""
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
    # What numpy and zipfile raise for bytes that are not an archive of plain arrays.
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


# A tolerance is this many times the measured difference: processors and releases sum in other orders.
_TOLERANCE_MARGIN: Final = 2.0
_TOLERANCE_LEAST: Final = 1e-3


@dataclass(frozen=True)
class GoldenLogits:
    """A runtime's logits of the golden inputs, by crop [K] and by encoded file [M]."""

    crop_K: NDArray[np.float32]  # noqa: N815  the suffix is the tensor's shape
    file_M: NDArray[np.float64]  # noqa: N815  the suffix is the tensor's shape

    def differences(self, golden: Golden) -> dict[str, float]:
        """The absolute difference from the reference, by input."""
        return {
            **_differences("image_NHWC", self.crop_K, golden.logit_K),
            **_differences("encoded", self.file_M, golden.encoded_logit_M),
        }


def golden_logits(runtime: Runtime, manifest: Manifest, golden: Golden) -> GoldenLogits:
    """Run the golden inputs; ``BundleError`` if that fails."""
    try:
        return GoldenLogits(
            infer_all(runtime, golden.image_NHWC),
            np.array([_file_logit(runtime, manifest, data) for data in golden.encoded]),
        )
    except (RuntimeFailure, ValueError) as error:
        raise BundleError(
            f"{manifest.golden_file} on {runtime.name} cannot be run ({error}): "
            "export the bundle again"
        ) from error


def check_golden(runtime: Runtime, manifest: Manifest, golden: Golden) -> float:
    """The largest absolute difference between the runtime's logits and the reference logits.

    Raises:
        BundleError: it is over the manifest's tolerance for the runtime's precision.
    """
    tolerance = manifest.tolerances.get(runtime.precision)
    if tolerance is None:
        raise BundleError(
            f"{MANIFEST_FILE} has no tolerance for the precision {runtime.precision!r}: "
            "export the bundle with one"
        )
    differences = golden_logits(runtime, manifest, golden).differences(golden)
    worst = max(differences, key=lambda name: differences[name])
    if not differences[worst] <= tolerance:
        raise BundleError(
            f"{manifest.golden_file} on {runtime.name}: the logit of {worst} differs by "
            f"{differences[worst]:.3g} from the reference, over the tolerance {tolerance:.3g}: "
            "use another runtime, or export the bundle again"
        )
    return differences[worst]


def measured_tolerance(max_difference: float) -> float:
    """The tolerance for a precision whose golden logits differed by that much when measured."""
    return max(_TOLERANCE_LEAST, _TOLERANCE_MARGIN * max_difference)


def infer_all(runtime: Runtime, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits [N] of any number of crops, in batches that the runtime takes; errors as ``infer``."""
    steps = range(0, len(image_NHWC), runtime.batch_max)
    batches = [image_NHWC[start : start + runtime.batch_max] for start in steps]
    return np.concatenate([runtime.infer(batch) for batch in batches])


def _differences(
    what: str, logit_N: NDArray[np.floating], reference_N: NDArray[np.float32]
) -> dict[str, float]:
    difference_N = np.abs(logit_N.astype(np.float64) - reference_N)
    return {f"{what}[{index}]": float(value) for index, value in enumerate(difference_N)}


def _file_logit(runtime: Runtime, manifest: Manifest, data: bytes) -> float:
    try:
        prepared = prepare(data, manifest.preprocess, Limits())
    except ImageError as error:
        raise ValueError(f"an encoded file was refused: {error}") from error
    return float(infer_all(runtime, prepared.image_NHWC).mean())
