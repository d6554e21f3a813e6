"""An fp32 graph with explicit Q/DQ nodes: int8, as TensorRT takes it.

In: a graph, crops to measure ranges on. Out: ONNX bytes. Errors: ``BundleError``.

TensorRT wants symmetric ranges, one scale for each output channel of a weight, and biases left in
floating point; ONNX Runtime's own CPU kernels want none of these, so this graph is not for them.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from engines.compile.quiet import quiet_root_logger
from engines.float_layers import float_layers, with_names
from engines.manifest import BundleError

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


class _Crops(CalibrationDataReader):  # type: ignore[misc]  # an untyped package
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


def quantized(model: onnx.ModelProto, image_NHWC: NDArray[np.uint8]) -> bytes:
    """The graph with int8 convolutions and matrix products, but for the first convolutions."""
    if len(image_NHWC) < LEAST_CROPS:
        raise BundleError(
            f"int8 needs {LEAST_CROPS} crops or more to measure ranges on, not {len(image_NHWC)}: "
            "name a --calibration directory with more images"
        )
    named = with_names(model)
    reader = _Crops(model.graph.input[0].name, image_NHWC)
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
                f"the model cannot be quantized ({error}): ask for fp16, or export it with plain "
                "operators"
            ) from error
        return path.read_bytes()
