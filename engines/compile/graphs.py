"""A model's fp32 graph in another precision, which is then the graph's own: strongly typed.

In: ONNX bytes. Out: ONNX bytes, with the same uint8 input and float32 output.
Errors: ``BundleError`` where the graph cannot be read or converted.
"""

from collections.abc import Callable

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnxruntime.transformers.float16 import convert_float_to_float16

from engines.bundle.manifest import BundleError, Precision
from engines.compile.bfloat import as_bfloat16, emulated
from engines.compile.int8 import int8_plan_graph, quiet_root_logger

# Made when int8 asks for them: uint8 [N, S, S, 3], the crops that the ranges are measured on.
Calibration = Callable[[], NDArray[np.uint8]]


def typed_graph(
    model_bytes: bytes, found: Precision, wanted: Precision, calibration: Calibration
) -> bytes:
    """The graph in the precision that is wanted.

    Args:
        model_bytes: the bundle's model.
        found: its precision.
        wanted: what the plan is to compute in.
        calibration: gives crops for int8; may raise ``BundleError``.
    """
    if wanted == found:
        return model_bytes
    if found != "fp32":
        raise BundleError(
            f"the model is {found} already and becomes no {wanted}: ask for --precision {found}, or "
            "export it in fp32"
        )
    if wanted == "fp8":
        raise BundleError(
            "fp8 graphs are not made here: ask for fp16, bf16 or int8, or export the model with "
            "its own Q/DQ nodes as precision fp8"
        )
    model = _parsed(model_bytes)
    if wanted == "int8":
        return int8_plan_graph(model, calibration())
    halves = _half(model)
    typed = halves if wanted == "fp16" else as_bfloat16(halves, model)
    return bytes(typed.SerializeToString())


def cpu_graph(
    model_bytes: bytes, found: Precision, wanted: Precision, typed: bytes
) -> bytes | None:
    """What computes on a CPU as the typed graph does on a GPU; None if there is no such graph.

    ``model_bytes``, ``found`` and ``wanted`` are those of ``typed_graph``, ``typed`` is what it gave.
    """
    if wanted in {"fp32", "fp16", "int8"}:
        return typed
    if wanted == "bf16" and found == "fp32":
        return bytes(emulated(_parsed(model_bytes)).SerializeToString())
    return None


def _parsed(model_bytes: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_from_string(model_bytes)
    except DecodeError as error:
        raise BundleError(f"the model is no ONNX graph ({error}): export it again") from error


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
