"""ONNX Runtime on the CPU: the runtime that every machine has.

In: a manifest and the verified bytes of its model. Out: a ``Runtime``.
Errors: ``BundleError`` where the model cannot be loaded or is not what the manifest says;
``RuntimeFailure`` where inference fails.
"""

import hashlib
from typing import Any, Final, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from engines.manifest import BundleError, InputSpec, Manifest
from engines.runtime.protocol import RuntimeFailure

NAME: Final = "onnxruntime-cpu"

# ONNX Runtime's own errors share no base class but Exception.
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
# How an ONNX file names a file beside it: protobuf field 1, eight bytes, "location".
_EXTERNAL_LOCATION: Final = b"\x0a\x08location"
_RGB_CHANNELS: Final = 3


class OnnxRuntimeCpu:
    """A model in ONNX Runtime, on ``threads`` threads; ``infer`` may be called from any thread."""

    def __init__(self, manifest: Manifest, model_bytes: bytes, *, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        if _EXTERNAL_LOCATION in model_bytes:
            raise BundleError(
                f"{manifest.model_file} keeps weights in another file (external data), which no "
                "digest covers: export it with its weights inside"
            )
        self._input = manifest.input
        self._precision = manifest.precision
        self._sha256 = hashlib.sha256(model_bytes).hexdigest()
        self._output_name = manifest.output_name
        self._session: Any = _open_session(manifest, model_bytes, threads)
        _check_graph(self._session, manifest)

    @property
    def name(self) -> str:
        """``onnxruntime-cpu``."""
        return NAME

    @property
    def precision(self) -> str:
        """The precision of the model's weights, as the manifest says."""
        return self._precision

    @property
    def engine_sha256(self) -> str:
        """SHA-256 of the model's bytes."""
        return self._sha256

    @property
    def batch_max(self) -> int:
        """The most crops that one call takes."""
        return self._input.batch_max

    def infer(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits, float32 [N], of uint8 crops [N, S, S, 3]; see ``Runtime.infer``."""
        _check_batch(image_NHWC, self._input)
        session = self._session
        if session is None:
            raise RuntimeFailure("the runtime was closed: open the bundle again")
        try:
            (output,) = session.run([self._output_name], {self._input.name: image_NHWC})
        except _ORT_ERRORS as error:
            raise RuntimeFailure(f"{NAME} failed on {len(image_NHWC)} crops: {error}") from error
        logit_N = cast("NDArray[np.float32]", output)
        if logit_N.shape != (len(image_NHWC),):
            raise RuntimeFailure(f"{len(image_NHWC)} crops gave logits {logit_N.shape}")
        if not np.isfinite(logit_N).all():
            where = np.flatnonzero(~np.isfinite(logit_N)).tolist()
            raise RuntimeFailure(f"the logit of crop {where} of the batch is not finite")
        return logit_N

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _open_session(manifest: Manifest, model_bytes: bytes, threads: int) -> object:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the processor from decoding while they wait for a batch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: the rest is about the graph's optimisation
    try:
        return onnxruntime.InferenceSession(
            model_bytes, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except _ORT_ERRORS as error:
        raise BundleError(
            f"{manifest.model_file} cannot be loaded by ONNX Runtime {onnxruntime.__version__} "
            f"({error}): export it again, or install the release it was exported for"
        ) from error


def _check_graph(session: Any, manifest: Manifest) -> None:  # noqa: ANN401  an untyped package
    """Refuses a graph whose input or output is not the one that the manifest describes."""
    spec = manifest.input
    found_in = [(node.name, node.type, _dims(node.shape)) for node in session.get_inputs()]
    found_out = [(node.name, node.type, _dims(node.shape)) for node in session.get_outputs()]
    image_dims = (None, spec.height_px, spec.width_px, _RGB_CHANNELS)
    for what, found, expected in (
        ("input", found_in, (spec.name, "tensor(uint8)", image_dims)),
        ("output", found_out, (manifest.output_name, "tensor(float)", (None,))),
    ):
        if found != [expected]:
            raise BundleError(
                f"{manifest.model_file} has the {what} {found}, the manifest says [{expected}] "
                "(None: any batch): export the model and the manifest together"
            )


def _dims(shape: list[int | str | None]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def _check_batch(image_NHWC: NDArray[np.uint8], spec: InputSpec) -> None:
    expected = (spec.height_px, spec.width_px, _RGB_CHANNELS)
    if image_NHWC.dtype != np.uint8 or image_NHWC.shape[1:] != expected:
        raise ValueError(
            f"expected uint8 crops [N, {', '.join(map(str, expected))}], "
            f"got {image_NHWC.dtype} {list(image_NHWC.shape)}"
        )
    if not 1 <= len(image_NHWC) <= spec.batch_max:
        raise ValueError(
            f"{len(image_NHWC)} crops in a batch; this bundle takes 1 to {spec.batch_max}: split it"
        )
