"""The interface of every runtime, and the checks that all of them share.

In: bytes of a graph, a batch, an engine's output. Out: the same, checked. Errors: ``BundleError``
for a graph; ``ValueError`` for the caller's batch; ``RuntimeFailure`` for the engine's output.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.bundle.manifest import BundleError, InputSpec, Manifest, Precision

RGB_CHANNELS: Final = 3
# How an ONNX file refers to a file beside it: protobuf field 1, eight bytes, "location".
_EXTERNAL_LOCATION: Final = b"\x0a\x08location"

Port = tuple[str, str, tuple[int | None, ...]]  # name, type, size by dimension (None: any)


class RuntimeFailure(Exception):
    """The runtime gave no logits for a batch; the message says which and why."""


class DeviceLost(RuntimeFailure):
    """The device is lost to this process; nothing works on it until a restart."""


class Runtime(Protocol):
    """A loaded model.

    Attributes:
        name: for instance ``onnxruntime-cpu``.
        precision: for instance ``fp32``.
        engine_sha256: SHA-256 of the bytes of the model that it loaded.
        batch_max: the largest batch for one call of ``infer``.
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


@dataclass(frozen=True)
class Graph:
    """A file that a runtime loads.

    Attributes:
        path: its path in the bundle, for messages.
        precision: what to compute in.
        data: its verified bytes.
    """

    path: str
    precision: Precision
    data: bytes

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


def refuse_external_data(graph: Graph) -> None:
    """Refuse an ONNX graph with weights in another file, which no digest covers."""
    if _EXTERNAL_LOCATION in graph.data:
        raise BundleError(
            f"{graph.path} keeps weights in another file (external data), which no "
            "digest covers: export it with its weights inside"
        )


def check_ports(
    graph: Graph, manifest: Manifest, inputs: Sequence[Port], outputs: Sequence[Port]
) -> None:
    """Refuse a graph whose input or output differs from the manifest's."""
    spec = manifest.input
    for what, actual, expected in (
        ("input", inputs, (spec.name, "uint8", (None, *crop_shape(spec)))),
        ("output", outputs, (manifest.output_name, "float32", (None,))),
    ):
        if list(actual) != [expected]:
            raise BundleError(
                f"{graph.path} has the {what} {list(actual)}, the manifest says [{expected}] "
                "(None: any batch): export the model and the manifest together"
            )


def check_threads(threads: int) -> None:
    """Raise ``ValueError`` for fewer than one thread."""
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")


def crop_shape(spec: InputSpec) -> tuple[int, int, int]:
    """(H, W, 3)."""
    return (spec.height_px, spec.width_px, RGB_CHANNELS)


def check_batch(image_NHWC: NDArray[np.uint8], spec: InputSpec) -> None:
    """Raise ``ValueError`` for crops of another type, shape or number than the bundle takes."""
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


def check_logits(logit_N: NDArray[np.float32], crops: int) -> NDArray[np.float32]:
    """The logits, if there is a finite one for each crop; else ``RuntimeFailure``."""
    if logit_N.shape != (crops,):
        raise RuntimeFailure(f"{crops} crops gave logits {logit_N.shape}")
    if not np.isfinite(logit_N).all():
        indices = np.flatnonzero(~np.isfinite(logit_N)).tolist()
        raise RuntimeFailure(f"the logit of crop {indices} of the batch is not finite")
    return logit_N
