"""How far a runtime is from the reference that a bundle carries, its golden outputs.

In: an open runtime, the manifest, the golden inputs. Out: logits, and their largest difference.
Errors: ``BundleError``, where a runtime cannot be run on them or is over the tolerance.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.golden import Golden
from engines.manifest import MANIFEST_FILE, BundleError, Manifest
from engines.preprocess import ImageError, Limits, prepare
from engines.runtime import Runtime, RuntimeFailure

# A tolerance is this many times what was measured: another processor or release adds in another order.
_TOLERANCE_MARGIN: Final = 2.0
_TOLERANCE_LEAST: Final = 1e-3


@dataclass(frozen=True)
class GoldenLogits:
    """What a runtime says of the golden inputs: logits by crop [K] and by encoded file [M]."""

    crop_K: NDArray[np.float32]  # noqa: N815  the suffix is the tensor's shape
    file_M: NDArray[np.float64]  # noqa: N815  the suffix is the tensor's shape

    def differences(self, golden: Golden) -> dict[str, float]:
        """The absolute difference from the reference, by the input's name."""
        return {
            **_differences("image_NHWC", self.crop_K, golden.logit_K),
            **_differences("encoded", self.file_M, golden.encoded_logit_M),
        }


def golden_logits(runtime: Runtime, manifest: Manifest, golden: Golden) -> GoldenLogits:
    """Run the golden inputs; raises ``BundleError`` where that fails."""
    try:
        return GoldenLogits(
            infer_all(runtime, golden.image_NHWC),
            np.array([_file_logit(runtime, manifest, one) for one in golden.encoded]),
        )
    except (RuntimeFailure, ValueError) as error:
        raise BundleError(
            f"{manifest.golden_file} on {runtime.name} cannot be run ({error}): "
            "export the bundle again"
        ) from error


def check_golden(runtime: Runtime, manifest: Manifest, golden: Golden) -> float:
    """The largest absolute difference between the runtime's logits and the reference ones.

    The crops show whether the runtime computes what the trainer did; the encoded files show
    the same of decoding and cropping. A difference over the manifest's tolerance for the
    runtime's precision raises ``BundleError``.
    """
    tolerance = manifest.tolerances.get(runtime.precision)
    if tolerance is None:
        raise BundleError(
            f"{MANIFEST_FILE} has no tolerance for the precision {runtime.precision!r}: "
            "export the bundle with one"
        )
    differences = golden_logits(runtime, manifest, golden).differences(golden)
    worst = max(differences, key=differences.__getitem__)
    if not differences[worst] <= tolerance:
        raise BundleError(
            f"{manifest.golden_file} on {runtime.name}: the logit of {worst} differs by "
            f"{differences[worst]:.3g} from the reference, over the tolerance {tolerance:.3g}: "
            "use another runtime, or export the bundle again"
        )
    return differences[worst]


def measured_tolerance(max_difference: float) -> float:
    """The tolerance of a precision whose golden logits differed by that much where it was made."""
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
    return {f"{what}[{index}]": float(one) for index, one in enumerate(difference_N)}


def _file_logit(runtime: Runtime, manifest: Manifest, data: bytes) -> float:
    try:
        prepared = prepare(data, manifest.preprocess, Limits())
    except ImageError as error:
        raise ValueError(f"an encoded file was refused: {error}") from error
    return float(infer_all(runtime, prepared.image_NHWC).mean())
