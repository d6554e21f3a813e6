"""int8 graphs for CPUs (ONNX Runtime's kernels) and for GPUs (TensorRT), with their calibration crops."""

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
    QuantFormat,
    QuantType,
    quantize_static,
)

from engines.bundle.manifest import BundleError, PreprocessSpec
from engines.preprocess import ImageError, Limits, prepare


@contextmanager
def quiet_root_logger() -> Iterator[None]:
    """Errors alone are heard, of every logger that has no level of its own."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


# The first convolutions see the pixels, where what a generator leaves behind is a few levels high
# within a range of thousands: 256 steps for that range would round it away (docs/concepts/runtimes.md).
FLOAT_CONVOLUTIONS: Final = 3


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose every node has a name: nodes are left out by it."""
    copy = type(model)()
    copy.CopyFrom(model)
    for index, node in enumerate(copy.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return copy


def float_layers(named: onnx.ModelProto) -> list[str]:
    """The names of those nodes, in a model whose nodes have names."""
    convolutions = [node.name for node in named.graph.node if node.op_type == "Conv"]
    return convolutions[:FLOAT_CONVOLUTIONS]


_log = structlog.get_logger(__name__)
_MOST_CROPS: Final = 1024  # ranges hardly change after some hundreds; these are 150 MB at 224 px


@dataclass(frozen=True)
class CalibrationCrops:
    """What ranges are measured on: crops, uint8 [N, S, S, 3], and the SHA-256 of the files they are of."""

    image_NHWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    digests: frozenset[str]


NOTHING_READ: Final = CalibrationCrops(np.empty((0, 1, 1, 3), np.uint8), frozenset())


def read_calibration(directory: Path | None, spec: PreprocessSpec) -> CalibrationCrops:
    """The crops of every image below the directory, in the order of names.

    What is no image is passed over and counted in the log; the first ``_MOST_CROPS`` crops are taken.
    """
    if directory is None:
        raise BundleError(
            "int8 needs images to measure ranges on: name --calibration DIR with some hundreds of "
            "images as they are uploaded, none of them from the evaluation set"
        )
    if not directory.is_dir():
        raise BundleError(f"{directory} is no directory: name the calibration images' directory")
    crops: list[NDArray[np.uint8]] = []
    digests = set()
    found, skipped = 0, 0
    for path in sorted(one for one in directory.rglob("*") if one.is_file()):
        data = path.read_bytes()
        try:
            image_NHWC = prepare(data, spec, Limits()).image_NHWC
        except ImageError:
            skipped += 1
            continue
        crops.append(image_NHWC)
        digests.add(hashlib.sha256(data).hexdigest())
        found += len(image_NHWC)
        if found >= _MOST_CROPS:
            break
    if not crops:
        raise BundleError(f"{directory} holds no image: name the calibration images' directory")
    _log.info("calibration_read", images=len(crops), crops=found, no_images=skipped)
    return CalibrationCrops(np.concatenate(crops)[:_MOST_CROPS], frozenset(digests))


_INSTALL: Final = "install the trainer's packages, from a checkout: pip install '.[trainer]'"


class _SingleCrops:
    """What ONNX Runtime reads calibration from: one crop [1, S, S, 3] a call, then None."""

    def __init__(self, input_name: str, crops: Sequence[NDArray[np.uint8]]) -> None:
        self._name = input_name
        self._left = iter(crops)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next input, by name."""
        crop_HWC = next(self._left, None)
        return None if crop_HWC is None else {self._name: crop_HWC[None]}


def int8_graph(model: bytes, input_name: str, crops: Sequence[NDArray[np.uint8]]) -> bytes:
    """Quantise a graph.

    Args:
        model: an fp32 ONNX graph with its weights inside.
        input_name: of its one input.
        crops: uint8 [S, S, 3], as preprocessing gives them; their number bounds time, not memory.
    """
    with tempfile.TemporaryDirectory() as folder, quiet_root_logger():
        source, result = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model)
        try:
            _quantise(source, result, _SingleCrops(input_name, crops))
        except ImportError as error:
            raise BundleError(f"a graph cannot be quantised here ({error}): {_INSTALL}") from error
        except Exception as error:  # ONNX Runtime's and onnx's errors share no other base
            raise BundleError(
                f"the graph cannot be quantised ({error}): leave this model in fp32"
            ) from error
        return result.read_bytes()


def _quantise(source: Path, result: Path, crops: _SingleCrops) -> None:
    import onnx  # noqa: PLC0415  no worker has these packages
    from onnxruntime.quantization import (  # noqa: PLC0415
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    CalibrationDataReader.register(_SingleCrops)
    prepared = source.with_name("prepared.onnx")
    # Symbolic shapes are for transformers; folding and plain shape inference are needed.
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    named = with_names(onnx.load(prepared))
    quantize_static(
        named,
        result,
        crops,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        nodes_to_exclude=float_layers(named),
    )
    onnx.checker.check_model(str(result), full_check=True)


LEAST_CROPS: Final = 32  # ranges of fewer are ranges of these few
_BATCH: Final = 8
_QUANTIZED: Final = ("Conv", "Gemm", "MatMul")
_OPTIONS: Final = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    # Q/DQ before each of these operators, none behind it, where an activation may still be fused.
    "OpTypesToExcludeOutputQuantization": list(_QUANTIZED),
}


class _CropBatches(CalibrationDataReader):  # type: ignore[misc]  # an untyped package
    """The crops in batches, as the quantizer reads them."""

    def __init__(self, input_name: str, image_NHWC: NDArray[np.uint8]) -> None:
        self._input_name = input_name
        # Whole batches only: the quantizer stacks what it measures of each.
        whole = len(image_NHWC) // _BATCH * _BATCH
        self._batches: Iterator[NDArray[np.uint8]] = iter(
            [image_NHWC[start : start + _BATCH] for start in range(0, whole, _BATCH)]
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next batch by the input's name; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self._input_name: batch}


def int8_plan_graph(model: onnx.ModelProto, image_NHWC: NDArray[np.uint8]) -> bytes:
    """The graph with int8 convolutions and matrix products, but for the first convolutions."""
    if len(image_NHWC) < LEAST_CROPS:
        raise BundleError(
            f"int8 needs {LEAST_CROPS} crops or more to measure ranges on, not {len(image_NHWC)}: "
            "name a --calibration directory with more images"
        )
    named = with_names(model)
    reader = _CropBatches(model.graph.input[0].name, image_NHWC)
    with tempfile.TemporaryDirectory(prefix="synthgate-int8-") as directory:
        path = Path(directory) / "int8.onnx"
        try:
            with quiet_root_logger():
                quantize_static(
                    named,
                    path,
                    reader,
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(_QUANTIZED),
                    per_channel=True,
                    activation_type=QuantType.QInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_exclude=float_layers(named),
                    extra_options=dict(_OPTIONS),
                )
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise BundleError(
                f"the model cannot be int8_plan_graph ({error}): ask for fp16, or export it with plain "
                "operators"
            ) from error
        return path.read_bytes()
