"""OpenVINO on the CPU: bf16 if the processor has it, int8 from a quantized graph, fp32 anywhere.

In: a manifest and the verified bytes of an ONNX graph. Out: a ``Runtime``. Errors: ``BundleError``
if the graph cannot be loaded, contradicts the manifest, or the processor lacks the precision;
``RuntimeFailure`` if inference fails.

By default OpenVINO silently computes an fp32 graph in bf16 on a processor that has bf16, and a bf16
request in fp32 on one that does not. So the precision is always requested, and read back.
"""

import threading
from typing import Any, Final

import numpy as np
import openvino
from numpy.typing import NDArray

from engines.bundle.manifest import BundleError, Manifest
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

NAME: Final = "openvino-cpu"

_DEVICE: Final = "CPU"
# By precision of the graph: what its float parts are computed in.
_HINTS: Final = {
    "fp32": openvino.Type.f32,
    "bf16": openvino.Type.bf16,
    "int8": openvino.Type.f32,
}
_TYPES: Final = {"u8": "uint8", "f32": "float32"}


class OpenVinoCpu:
    """A model in OpenVINO; ``infer`` may be called from any thread, and runs one call at a time."""

    def __init__(self, manifest: Manifest, graph: Graph, *, threads: int) -> None:
        check_threads(threads)
        refuse_external_data(graph)
        self.name: Final = NAME
        self.precision: Final = str(graph.precision)
        self.engine_sha256: Final = graph.sha256
        self.batch_max: Final = manifest.input.batch_max
        self._input = manifest.input
        model = _read(graph)
        check_ports(graph, manifest, _ports(model.inputs), _ports(model.outputs))
        self._one_call = threading.Lock()  # a request takes one batch at a time
        self._request: Any = _compile(model, graph, threads).create_infer_request()

    def infer(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits, float32 [N], of uint8 crops [N, S, S, 3]; see ``Runtime.infer``."""
        check_batch(image_NHWC, self._input)
        with self._one_call:
            if self._request is None:
                raise RuntimeFailure("the runtime was closed: open the bundle again")
            try:
                # Copied below: the next call reuses the request's buffers.
                outputs = self._request.infer([np.ascontiguousarray(image_NHWC)])
            except (RuntimeError, MemoryError) as error:
                raise RuntimeFailure(
                    f"{NAME} failed on {len(image_NHWC)} crops: {error}"
                ) from error
        return check_logits(np.asarray(outputs[0], dtype=np.float32), len(image_NHWC))

    def close(self) -> None:
        """Free the request and its compiled model, after a running call."""
        with self._one_call:
            self._request = None


def _read(graph: Graph) -> openvino.Model:
    try:
        return openvino.Core().read_model(graph.data)
    except RuntimeError as error:
        raise _unloadable(graph, error) from error


def _compile(model: openvino.Model, graph: Graph, threads: int) -> openvino.CompiledModel:
    if graph.precision not in _HINTS:
        raise BundleError(
            f"{NAME} computes in {', '.join(_HINTS)}, not in {graph.precision} ({graph.path}): "
            "name another runtime"
        )
    requested = _HINTS[graph.precision]
    try:
        compiled = openvino.Core().compile_model(
            model,
            _DEVICE,
            {
                "INFERENCE_PRECISION_HINT": requested,
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
    except RuntimeError as error:
        raise _unloadable(graph, error) from error
    got = compiled.get_property("INFERENCE_PRECISION_HINT")
    if got != requested:
        raise BundleError(
            f"this processor does not compute {graph.path} in {graph.precision} (OpenVINO chose "
            f"{got}): name another runtime, or run where the processor has {graph.precision}"
        )
    return compiled


def _unloadable(graph: Graph, error: Exception) -> BundleError:
    return BundleError(
        f"{graph.path} cannot be loaded by OpenVINO {openvino.__version__} ({error}): export it "
        "again, or name another runtime"
    )


def _ports(nodes: list[openvino.Output]) -> list[Port]:
    return [
        (
            node.get_any_name(),
            _TYPES.get(node.element_type.get_type_name(), node.element_type.get_type_name()),
            tuple(
                None if size.is_dynamic else size.get_length() for size in node.get_partial_shape()
            ),
        )
        for node in nodes
    ]
