"""bfloat16 graphs, from the float16 graph that ONNX Runtime makes; and the same for a CPU.

In: ONNX graphs. Out: ONNX graphs. Errors: ``BundleError`` for nested graphs.

ONNX Runtime's converter knows only float16, but it places casts without regard to which 16-bit type
it is. Weights come from the fp32 graph: float16 would lose the range that bfloat16 exists for.
"""

import ml_dtypes
import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, TensorProto, numpy_helper

from engines.bundle.manifest import BundleError


def as_bfloat16(halves: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """The float16 graph with bfloat16 instead; ``original`` is the fp32 graph it was made from."""
    result = onnx.ModelProto()
    result.CopyFrom(halves)
    weights = {tensor.name: tensor for tensor in original.graph.initializer}
    graph = result.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(_rounded(tensor.name, weights.get(tensor.name, tensor)))
    for node in graph.node:
        for attribute in node.attribute:
            _retype(attribute)
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    return result


def _rounded(name: str, tensor: TensorProto) -> TensorProto:
    values = numpy_helper.to_array(tensor).astype(np.float32).astype(ml_dtypes.bfloat16)
    return onnx.helper.make_tensor(
        name, TensorProto.BFLOAT16, values.shape, values.tobytes(), raw=True
    )


def _retype(attribute: AttributeProto) -> None:
    """Change a cast's target or a constant's value; refuse a nested graph."""
    if attribute.type == AttributeProto.GRAPH and _has_halves(attribute.g):
        raise BundleError(
            "the model has branches or loops, which cannot become bf16: export it without, or use fp16"
        )
    if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
        attribute.i = TensorProto.BFLOAT16
    if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
        attribute.t.CopyFrom(_rounded(attribute.t.name, attribute.t))


def _has_halves(graph: GraphProto) -> bool:
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.initializer) or any(
        a.name == "to" and a.i == TensorProto.FLOAT16 for node in graph.node for a in node.attribute
    )


def emulated(original: onnx.ModelProto) -> onnx.ModelProto:
    """An fp32 graph that rounds weights and every tensor to bfloat16, for the CPU.

    ONNX Runtime's CPU kernels do not run the bfloat16 graph. A GPU sums in fp32 and rounds what it
    stores, as this graph does.
    """
    result = onnx.ModelProto()
    result.CopyFrom(original)
    graph = result.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(_rounded(tensor.name, tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    types = {value.name: value.type.tensor_type.elem_type for value in _inferred(result)}
    outputs = {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        for index, name in enumerate(node.output):
            if types.get(name) == TensorProto.FLOAT and name not in outputs:
                node.output[index] = f"{name}_exact"
                stored = f"{name}_stored"
                nodes.append(_cast(f"{name}_exact", stored, TensorProto.BFLOAT16))
                nodes.append(_cast(stored, name, TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return result


def _inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return list(onnx.shape_inference.infer_shapes(model).graph.value_info)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], to=kind)
