"""The layers that stay in float where a graph is made int8, for CPUs and for GPUs alike.

In: an ONNX model. Out: names of its nodes. No errors of its own.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx  # no worker has it

# The first convolutions see the pixels, where what a generator leaves behind is a few levels high
# within a range of thousands: 256 steps for that range would round it away (docs/concepts/runtimes.md).
FLOAT_CONVOLUTIONS: Final = 3


def with_names(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """A copy whose every node has a name: nodes are left out by it."""
    copy = type(model)()
    copy.CopyFrom(model)
    for index, node in enumerate(copy.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return copy


def float_layers(named: "onnx.ModelProto") -> list[str]:
    """The names of those nodes, in a model whose nodes have names."""
    convolutions = [node.name for node in named.graph.node if node.op_type == "Conv"]
    return convolutions[:FLOAT_CONVOLUTIONS]
