"""The int8 graph for CPUs: int8 throughout, but for the convolutions that see the pixels."""

import numpy as np
import onnx

from engines.compile.int8 import FLOAT_CONVOLUTIONS, int8_graph
from tests.support.deep_model import CONVOLUTIONS, deep_model

RANDOM = np.random.default_rng(20261128)
CROPS = RANDOM.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)


def test_the_first_convolutions_keep_float_weights_and_the_others_do_not() -> None:
    """Even where the exporter gave no node a name."""
    graph = onnx.load_from_string(int8_graph(deep_model(RANDOM), "image_NHWC", list(CROPS))).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    weights = [made_by.get(one.input[1]) for one in graph.node if one.op_type == "Conv"]
    assert weights[:FLOAT_CONVOLUTIONS] == [None] * FLOAT_CONVOLUTIONS
    assert weights[FLOAT_CONVOLUTIONS:] == ["DequantizeLinear"] * (
        CONVOLUTIONS - FLOAT_CONVOLUTIONS
    )
