"""ONNX Runtime on the CPU, which every machine has.

In: a manifest and the verified bytes of a graph, in fp32 or int8 (Q/DQ). Out: a ``Runtime``.
Errors: ``BundleError`` if the graph cannot be loaded or contradicts the manifest;
``RuntimeFailure`` if inference fails.
"""

from typing import Any, Final, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from engines.bundle.manifest import BundleError, Manifest
from engines.runtime.machine import INT8_FEATURES, processor_features
from engines.runtime.protocol import (
    Graph,
    Port,
    RuntimeFailure,
    check_batch,
    check_logits,
    check_ports,
    check_threads,
    refuse_external_data,
)

NAME: Final = "onnxruntime-cpu"

# ONNX Runtime's errors have no common base class but Exception.
_ORT_ERRORS: Final = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotFound,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    MemoryError,
    RuntimeError,
    ValueError,
)
# ONNX Runtime's type names, and the manifest's.
_TYPES: Final = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRuntimeCpu:
    """A model in ONNX Runtime, on ``threads`` threads; ``infer`` may be called from any thread."""

    def __init__(self, manifest: Manifest, graph: Graph, *, threads: int) -> None:
        check_threads(threads)
        refuse_external_data(graph)
        self.name: Final = NAME
        self.precision: Final = str(graph.precision)
        self.engine_sha256: Final = graph.sha256
        self.batch_max: Final = manifest.input.batch_max
        self._input = manifest.input
        self._output_name = manifest.output_name
        self._session: Any = _open_session(graph, threads)
        inputs, outputs = _ports(self._session.get_inputs()), _ports(self._session.get_outputs())
        check_ports(graph, manifest, inputs, outputs)

    def infer(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits, float32 [N], of uint8 crops [N, S, S, 3]; see ``Runtime.infer``."""
        check_batch(image_NHWC, self._input)
        session = self._session
        if session is None:
            raise RuntimeFailure("the runtime was closed: open the bundle again")
        try:
            (output,) = session.run([self._output_name], {self._input.name: image_NHWC})
        except _ORT_ERRORS as error:
            raise RuntimeFailure(f"{NAME} failed on {len(image_NHWC)} crops: {error}") from error
        return check_logits(cast("NDArray[np.float32]", output), len(image_NHWC))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def must_widen(processor: frozenset[str]) -> bool:
    """Whether ONNX Runtime must add int8 products in 32 bits.

    Without VNNI, AVX2 adds pairs of them in 16 bits, which overflow: the same graph would give other
    logits on an older processor. With VNNI the sums are exact, and the 32-bit kernels would take
    twice as long (docs/concepts/runtimes.md). fp32 is not affected.
    """
    return not processor & INT8_FEATURES


def _open_session(graph: Graph, threads: int) -> Any:  # noqa: ANN401  an untyped package
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the processor from decoding while they wait for a batch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if must_widen(processor_features()):
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3  # errors only: the rest is about graph optimisation
    try:
        return onnxruntime.InferenceSession(
            graph.data, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except _ORT_ERRORS as error:
        raise BundleError(
            f"{graph.path} cannot be loaded by ONNX Runtime {onnxruntime.__version__} "
            f"({error}): export it again, or install the release it was exported for"
        ) from error


def _ports(nodes: Any) -> list[Port]:  # noqa: ANN401  an untyped package
    return [(node.name, _TYPES.get(node.type, node.type), _dims(node.shape)) for node in nodes]


def _dims(shape: list[int | str | None]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)
