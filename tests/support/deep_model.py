"""A model of several convolutions, whose names and order tests can count on."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CONVOLUTIONS = 5


def deep_model(random: np.random.Generator) -> bytes:
    """Five convolutions over the pixels of 32 x 32 crops, then one logit a crop."""
    weights: dict[str, NDArray[np.float32]] = {
        f"w{index}": random.normal(0, 0.3, (8, 3 if index == 0 else 8, 3, 3)).astype(np.float32)
        for index in range(CONVOLUTIONS)
    }
    weights |= {
        "scale": np.array([128], np.float32),
        "last": random.normal(0, 1, (8, 1)).astype(np.float32),
    }
    weights |= {
        f"b{index}": random.normal(0, 0.1, 8).astype(np.float32) for index in range(CONVOLUTIONS)
    }
    flat = numpy_helper.from_array(np.array([-1], dtype=np.int64), "flat")
    nodes = [
        helper.make_node("Cast", ["image_NHWC"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["t", "scale"], ["x0"]),
    ]
    for index in range(CONVOLUTIONS):
        names = [f"x{index}", f"w{index}", f"b{index}"]
        nodes.append(helper.make_node("Conv", names, [f"c{index}"], strides=[1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"x{index + 1}"]))
    nodes += [
        helper.make_node("GlobalAveragePool", [f"x{CONVOLUTIONS}"], ["p"]),
        helper.make_node("Flatten", ["p"], ["v"], axis=1),
        helper.make_node("MatMul", ["v", "last"], ["l"]),
        helper.make_node("Reshape", ["l", "flat"], ["logit_N"]),
    ]
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("image_NHWC", TensorProto.UINT8, ["N", 32, 32, 3])],
        [helper.make_tensor_value_info("logit_N", TensorProto.FLOAT, ["N"])],
        [*(numpy_helper.from_array(value, key) for key, value in weights.items()), flat],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
