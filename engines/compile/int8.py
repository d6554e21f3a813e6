"""int8 graphs of an fp32 model: one for CPUs (ONNX Runtime), one for GPUs (TensorRT).

In: an fp32 ONNX graph, crops to measure ranges on. Out: ONNX bytes with QuantizeLinear and
DequantizeLinear pairs, and the same input and output. Errors: ``BundleError``.

Both use ONNX Runtime's post-training static quantization, with int8 weights by channel, and both
keep the first convolutions in float. They differ in what the kernels take:

- CPU: uint8 activations by tensor; ranges are the lowest and highest that calibration saw.
  Weights use all eight bits. ``engines.runtime.onnxruntime`` prevents the overflow that processors
  without VNNI would cause.
- GPU: symmetric ranges and biases in float, which ONNX Runtime's CPU kernels do not need.
"""

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import structlog
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from engines.bundle.manifest import BundleError, PreprocessSpec
from engines.preprocess import ImageError, Limits, prepare

_log = structlog.get_logger(__name__)

# The first convolutions see the pixels. A generator's traces there are a few levels high in a range
# of thousands, and 256 steps for that range would round them away (docs/concepts/runtimes.md).
FLOAT_CONVOLUTIONS: Final = 3
LEAST_CROPS: Final = 32  # fewer crops give no representative ranges
_MOST_CROPS: Final = 1024  # ranges hardly change after some hundreds; 150 MB at 224 px
_BATCH: Final = 8
_QUANTIZED: Final = ("Conv", "Gemm", "MatMul")
_TENSORRT_OPTIONS: Final = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    # Q/DQ before each of these operators and none behind it, so that an activation can be fused.
    "OpTypesToExcludeOutputQuantization": list(_QUANTIZED),
}


@dataclass(frozen=True)
class CalibrationCrops:
    """Crops to measure ranges on, uint8 [N, S, S, 3], and the SHA-256 of the files they are from."""

    image_NHWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    digests: frozenset[str]


NO_CALIBRATION: Final = CalibrationCrops(np.empty((0, 1, 1, 3), np.uint8), frozenset())


def read_calibration(directory: Path | None, spec: PreprocessSpec) -> CalibrationCrops:
    """The crops of every image below the directory, in the order of names, at most 1024.

    Files that are not images are skipped and counted in the log.
    """
    if directory is None:
        raise BundleError(
            "int8 needs images to measure ranges on: add --calibration DIR with some hundreds of "
            "images as they are uploaded, none of them from the evaluation set"
        )
    if not directory.is_dir():
        raise BundleError(f"{directory} is not a directory: name one with calibration images")
    crops: list[NDArray[np.uint8]] = []
    digests = set()
    count, skipped = 0, 0
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        data = path.read_bytes()
        try:
            image_NHWC = prepare(data, spec, Limits()).image_NHWC
        except ImageError:
            skipped += 1
            continue
        crops.append(image_NHWC)
        digests.add(hashlib.sha256(data).hexdigest())
        count += len(image_NHWC)
        if count >= _MOST_CROPS:
            break
    if not crops:
        raise BundleError(f"{directory} holds no image: name a directory with calibration images")
    _log.info("calibration_read", images=len(crops), crops=count, skipped=skipped)
    return CalibrationCrops(np.concatenate(crops)[:_MOST_CROPS], frozenset(digests))


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # an untyped package
    """Batches of crops, as the quantizer reads them: a batch by the input's name, then None."""

    def __init__(self, input_name: str, batches: Sequence[NDArray[np.uint8]]) -> None:
        self._input_name = input_name
        self._batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next batch by the input's name; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self._input_name: batch}


def int8_graph(model: bytes, input_name: str, crops: Sequence[NDArray[np.uint8]]) -> bytes:
    """The int8 graph for CPUs.

    Args:
        model: an fp32 ONNX graph with its weights inside.
        input_name: the name of its only input.
        crops: uint8 [S, S, 3] from preprocessing; their number decides the time, not the memory.
    """
    with tempfile.TemporaryDirectory(prefix="synthgate-int8-") as directory, quiet_root_logger():
        source, prepared = Path(directory) / "fp32.onnx", Path(directory) / "prepared.onnx"
        result = Path(directory) / "int8.onnx"
        source.write_bytes(model)
        try:
            # Symbolic shapes are for transformers; folding and plain shape inference are needed.
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            named = _with_names(onnx.load(prepared))
            quantize_static(
                named,
                result,
                _Batches(input_name, [crop_HWC[None] for crop_HWC in crops]),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=_float_layers(named),
            )
            onnx.checker.check_model(str(result), full_check=True)
        except Exception as error:  # ONNX Runtime's and onnx's errors have no other common base
            raise BundleError(
                f"the graph cannot be quantized ({error}): leave this model in fp32"
            ) from error
        return result.read_bytes()


def tensorrt_int8_graph(model: onnx.ModelProto, image_NHWC: NDArray[np.uint8]) -> bytes:
    """The int8 graph for TensorRT; ``BundleError`` for fewer than ``LEAST_CROPS`` crops."""
    if len(image_NHWC) < LEAST_CROPS:
        raise BundleError(
            f"int8 needs at least {LEAST_CROPS} crops to measure ranges on, not {len(image_NHWC)}: "
            "name a --calibration directory with more images"
        )
    named = _with_names(model)
    # Whole batches only: the quantizer stacks what it measures on each.
    starts = range(0, len(image_NHWC) // _BATCH * _BATCH, _BATCH)
    batches = [image_NHWC[start : start + _BATCH] for start in starts]
    with tempfile.TemporaryDirectory(prefix="synthgate-int8-") as directory:
        result = Path(directory) / "int8.onnx"
        try:
            with quiet_root_logger():
                quantize_static(
                    named,
                    result,
                    _Batches(model.graph.input[0].name, batches),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(_QUANTIZED),
                    per_channel=True,
                    activation_type=QuantType.QInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_exclude=_float_layers(named),
                    extra_options=dict(_TENSORRT_OPTIONS),
                )
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise BundleError(
                f"the model cannot be quantized ({error}): choose fp16, or export it with plain "
                "operators"
            ) from error
        return result.read_bytes()


def _with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name, by which the quantizer excludes nodes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for index, node in enumerate(copy.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return copy


def _float_layers(named: onnx.ModelProto) -> list[str]:
    """The names of the convolutions that stay in float."""
    convolutions = [node.name for node in named.graph.node if node.op_type == "Conv"]
    return convolutions[:FLOAT_CONVOLUTIONS]


@contextmanager
def quiet_root_logger() -> Iterator[None]:
    """Let only errors through: ONNX Runtime's graph tools log every weight on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
