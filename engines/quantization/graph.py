"""The int8 graph of an fp32 one, by ONNX Runtime's post-training static quantisation.

In: the bytes of an ONNX graph, crops to calibrate on. Out: the bytes of a graph with
QuantizeLinear/DequantizeLinear pairs, of the same input and output. Errors: ``BundleError``, where
the packages are missing or the graph cannot be quantised.

The first convolutions stay in float. Weights are int8 by channel, activations uint8 by tensor,
ranges the least and most that calibration saw. Weights use all eight bits:
``engines.runtime.onnxruntime_cpu`` sees to it that they do not overflow on processors without VNNI,
for which others would spend one bit, and accuracy with it.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.compile.quiet import quiet_root_logger
from engines.float_layers import float_layers, with_names
from engines.manifest import BundleError

_INSTALL: Final = "install the trainer's packages: pip install 'synthgate[trainer]'"


class _Crops:
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
            _quantise(source, result, _Crops(input_name, crops))
        except ImportError as error:
            raise BundleError(f"a graph cannot be quantised here ({error}): {_INSTALL}") from error
        except Exception as error:  # ONNX Runtime's and onnx's errors share no other base
            raise BundleError(
                f"the graph cannot be quantised ({error}): leave this model in fp32"
            ) from error
        return result.read_bytes()


def _quantise(source: Path, result: Path, crops: _Crops) -> None:
    import onnx  # noqa: PLC0415  no worker has these packages
    from onnxruntime.quantization import (  # noqa: PLC0415
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    CalibrationDataReader.register(_Crops)
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
