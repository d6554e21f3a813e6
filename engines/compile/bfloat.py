"""A graph whose halves are float16, with bfloat16 in their place; and what it computes, for a CPU.

In: ONNX graphs. Out: ONNX graphs. Errors: ``BundleError`` for a graph within a graph.

The converter of ONNX Runtime knows float16 alone, but where it puts casts does not depend on which
of the two 16-bit types it is. Weights are taken from the fp32 graph: through float16 they would lose
range, which is what bfloat16 is for.
"""

import ml_dtypes
import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, TensorProto, numpy_helper

from engines.bundle.manifest import BundleError


def as_bfloat16(halves: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """The float16 graph as a bfloat16 one; ``original`` is the fp32 graph that it was made of."""
    result = onnx.ModelProto()
    result.CopyFrom(halves)
    weights = {one.name: one for one in original.graph.initializer}
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
    """A cast's target, or a constant's value; a graph within a graph is refused."""
    if attribute.type == AttributeProto.GRAPH and _has_halves(attribute.g):
        raise BundleError(
            "the model has branches or loops, which become no bf16: export it without, or ask for fp16"
        )
    if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
        attribute.i = TensorProto.BFLOAT16
    if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
        attribute.t.CopyFrom(_rounded(attribute.t.name, attribute.t))


def _has_halves(graph: GraphProto) -> bool:
    return any(one.data_type == TensorProto.FLOAT16 for one in graph.initializer) or any(
        a.name == "to" and a.i == TensorProto.FLOAT16 for node in graph.node for a in node.attribute
    )


def emulated(original: onnx.ModelProto) -> onnx.ModelProto:
    """An fp32 graph that rounds weights and every tensor as bfloat16 would: for the CPU.

    No CPU of ours runs the bfloat16 graph. A GPU adds up in fp32 and rounds what it stores, which is
    what this graph does.
    """
    result = onnx.ModelProto()
    result.CopyFrom(original)
    graph = result.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(_rounded(tensor.name, tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    types = {one.name: one.type.tensor_type.elem_type for one in _inferred(result)}
    outputs = {one.name for one in graph.output}
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
