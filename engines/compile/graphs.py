"""A model's fp32 graph in another precision, as a strongly typed graph.

In: ONNX bytes. Out: ONNX bytes, with the same uint8 input and float32 output.
Errors: ``BundleError`` if the graph cannot be read or converted.
"""

from collections.abc import Callable

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnxruntime.transformers.float16 import convert_float_to_float16

from engines.bundle.manifest import BundleError, Precision
from engines.compile.bfloat import as_bfloat16, emulated
from engines.compile.int8 import quiet_root_logger, tensorrt_int8_graph

# Called only for int8: uint8 [N, S, S, 3], the crops that ranges are measured on.
Crops = Callable[[], NDArray[np.uint8]]


def typed_graph(model_bytes: bytes, current: Precision, wanted: Precision, crops: Crops) -> bytes:
    """The graph in the wanted precision.

    Args:
        model_bytes: the bundle's model.
        current: its precision.
        wanted: what the plan must compute in.
        crops: gives calibration crops for int8; may raise ``BundleError``.
    """
    if wanted == current:
        return model_bytes
    if current != "fp32":
        raise BundleError(
            f"the model is in {current} and cannot become {wanted}: use --precision {current}, or "
            "export it in fp32"
        )
    if wanted == "fp8":
        raise BundleError(
            "fp8 graphs are not made here: use fp16, bf16 or int8, or export the model with its "
            "own Q/DQ nodes as precision fp8"
        )
    model = _parsed(model_bytes)
    if wanted == "int8":
        return tensorrt_int8_graph(model, crops())
    halves = _half(model)
    typed = halves if wanted == "fp16" else as_bfloat16(halves, model)
    return bytes(typed.SerializeToString())


def cpu_graph(
    model_bytes: bytes, current: Precision, wanted: Precision, typed: bytes
) -> bytes | None:
    """A graph that computes on a CPU what the typed graph computes on a GPU; None without one.

    Args:
        model_bytes: as for ``typed_graph``.
        current: as for ``typed_graph``.
        wanted: as for ``typed_graph``.
        typed: its result.
    """
    if wanted in {"fp32", "fp16", "int8"}:
        return typed
    if wanted == "bf16" and current == "fp32":
        return bytes(emulated(_parsed(model_bytes)).SerializeToString())
    return None


def _parsed(model_bytes: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_from_string(model_bytes)
    except DecodeError as error:
        raise BundleError(f"the model is not an ONNX graph ({error}): export it again") from error


def _half(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with quiet_root_logger():
            return convert_float_to_float16(copy, keep_io_types=True)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"the model cannot be converted to 16 bits ({error}): export it with plain operators"
        ) from error
