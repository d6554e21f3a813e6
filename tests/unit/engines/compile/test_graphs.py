"""The precision in the graph: what it becomes, and that it still computes the same."""

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from engines.bundle.manifest import BundleError, Precision, PreprocessSpec
from engines.compile.graphs import cpu_graph, typed_graph
from engines.compile.int8 import FLOAT_CONVOLUTIONS
from engines.compile.plan import PlanSpec, build_plan
from engines.runtime.tensorrt_api import TENSORRT_RTX, import_api
from tests.support.bundles import tiny_manifest, tiny_model
from tests.support.deep_model import CONVOLUTIONS, deep_model
from tests.unit.engines.compile.test_plan import Seen

RANDOM = np.random.default_rng(20261125)
CROPS = RANDOM.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
MANIFEST = tiny_manifest(PreprocessSpec(version="1", crop_policy="center", crop_px=32))


DEEP = deep_model(RANDOM)


def typed(precision: Precision) -> bytes:
    """The deep model in that precision."""
    return typed_graph(DEEP, "fp32", precision, lambda: CROPS)


def logits(model: bytes) -> NDArray[np.float32]:
    """What ONNX Runtime computes on the CPU."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"image_NHWC": CROPS})[0]
    return found


def weight_types(model: bytes) -> Counter[int]:
    """How many initializers there are of each type."""
    return Counter(one.data_type for one in onnx.load_from_string(model).graph.initializer)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_every_precision_keeps_input_and_output_and_becomes_a_plan(precision: Precision) -> None:
    model = typed(precision)
    graph = onnx.load_from_string(model).graph
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    order = PlanSpec(
        TENSORRT_RTX, MANIFEST.input, MANIFEST.output_name, "8.0", hardware_compatible=True
    )
    assert build_plan(import_api(TENSORRT_RTX), order, model, b"", Seen()).plan


@pytest.mark.parametrize(("precision", "most"), [("fp16", 0.02), ("int8", 0.1)])
def test_the_logits_stay_near_and_are_not_the_same(precision: Precision, most: float) -> None:
    reference_N = logits(DEEP)
    difference_N = np.abs(logits(typed(precision)) - reference_N) / np.abs(reference_N).max()
    assert 0 < difference_N.max() < most


def test_fp16_leaves_no_weight_in_32_bits() -> None:
    types = weight_types(typed("fp16"))
    assert types[TensorProto.FLOAT16] == 2 * CONVOLUTIONS + 2
    assert types[TensorProto.FLOAT] == 0


def test_bf16_rounds_the_weights_of_the_fp32_graph_once() -> None:
    wanted = {one.name: one for one in onnx.load_from_string(DEEP).graph.initializer}
    graph = onnx.load_from_string(typed("bf16")).graph
    found = {one.name: one for one in graph.initializer}
    types = weight_types(typed("bf16"))
    assert types[TensorProto.BFLOAT16] == 2 * CONVOLUTIONS + 2
    assert types[TensorProto.FLOAT16] == types[TensorProto.FLOAT] == 0
    for name, exact in wanted.items():
        if exact.data_type == TensorProto.FLOAT:
            expected = numpy_helper.to_array(exact).astype(ml_dtypes.bfloat16)
            np.testing.assert_array_equal(numpy_helper.to_array(found[name]), expected)
    casts = [a.i for node in graph.node for a in node.attribute if a.name == "to"]
    assert TensorProto.BFLOAT16 in casts
    assert TensorProto.FLOAT16 not in casts


def test_a_cpu_computes_what_bf16_would_by_rounding_every_tensor() -> None:
    emulated = cpu_graph(DEEP, "fp32", "bf16", typed("bf16"))
    assert emulated is not None
    reference_N = logits(DEEP)
    bf16, fp16 = (
        np.abs(logits(model) - reference_N).max() / np.abs(reference_N).max()
        for model in (emulated, typed("fp16"))
    )
    assert 2 * fp16 < bf16 < 0.05  # it keeps three bits fewer of a mantissa


def test_what_no_cpu_computes_is_not_pretended() -> None:
    assert cpu_graph(DEEP, "fp8", "fp8", DEEP) is None
    assert cpu_graph(DEEP, "bf16", "bf16", DEEP) is None
    assert cpu_graph(DEEP, "fp32", "fp16", b"typed") == b"typed"


def test_bf16_keeps_what_fp16_would_lose() -> None:
    model = tiny_model(32)
    tiny = 1e-12  # below the least number of fp16
    model.graph.initializer[3].CopyFrom(
        numpy_helper.from_array(np.full((3, 1), tiny, np.float32), "weight")
    )
    converted = typed_graph(model.SerializeToString(), "fp32", "bf16", lambda: CROPS)
    (weight,) = [
        one for one in onnx.load_from_string(converted).graph.initializer if one.name == "weight"
    ]
    assert numpy_helper.to_array(weight).astype(np.float32) == pytest.approx(tiny, rel=0.01)


def test_int8_is_symmetric_with_biases_in_float_and_the_first_convolutions_left_alone() -> None:
    graph = onnx.load_from_string(typed("int8")).graph
    initializers = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    quantized_inputs = [
        [made_by[name].op_type if name in made_by else "weight" for name in node.input[:2]]
        for node in graph.node
        if node.op_type == "Conv"
    ]
    pair = ["DequantizeLinear", "DequantizeLinear"]
    assert quantized_inputs[FLOAT_CONVOLUTIONS:] == [pair] * (CONVOLUTIONS - FLOAT_CONVOLUTIONS)
    assert pair not in quantized_inputs[:FLOAT_CONVOLUTIONS]
    zero_points = [
        initializers[node.input[2]]
        for node in graph.node
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}
    ]
    assert all(not one.any() and one.dtype == np.int8 for one in zero_points)
    assert all(one.dtype != np.int32 for one in initializers.values())
    scales = [initializers[n.input[1]] for n in graph.node if n.op_type == "DequantizeLinear"]
    assert {8} <= {one.size for one in scales}  # one for each output channel


def test_too_few_crops_to_measure_ranges_on_are_refused() -> None:
    with pytest.raises(BundleError, match=r"int8 needs at least 32 crops .*, not 8: name"):
        typed_graph(DEEP, "fp32", "int8", lambda: CROPS[:8])


def test_a_graph_of_that_precision_is_left_as_it_is() -> None:
    assert typed_graph(DEEP, "fp16", "fp16", lambda: CROPS) is DEEP


def test_a_graph_is_not_converted_twice() -> None:
    with pytest.raises(BundleError, match="is in int8 and cannot become fp16"):
        typed_graph(DEEP, "int8", "fp16", lambda: CROPS)


def test_fp8_is_refused_with_what_to_do() -> None:
    with pytest.raises(BundleError, match="fp8 graphs are not made here: use"):
        typed("fp8")


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(BundleError, match="is not an ONNX graph"):
        typed_graph(b"\xff" * 64, "fp32", "fp16", lambda: CROPS)
