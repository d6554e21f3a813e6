"""A detector's weights, taken back out of an exported graph, whose norms lie folded in its convolutions.

In: a detector, the graph as ``trainer.bundle.export`` writes it, crops as training draws them. Out: the detector,
filled: backbone and classifier, which is all that a graph without a gate holds. Errors: ``DetectorError``.

A folded convolution is W' = g/s W and b' = b - g m/s, of a norm with gain g, offset b, mean m and deviation s (Jacob
et al., CVPR 2018, section 3.2). What g, b, m and s were cannot be told from it, and need not be: measure mean and
variance of what W' makes of crops, let those be the norm's, and choose g and b such that both undo each other. The
graph's function is then the detector's to the last digits, and a norm that goes by its batches, as in training, finds
what it was told to expect.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from trainer.detector.errors import DetectorError
from trainer.detector.student import Detector

_IN_GRAPH = "_detector."  # before each of the detector's names
_PARTS = ("backbone.", "classifier.")
_AT_ONCE = 32  # crops
_LEAST_LENGTH = 1e-12  # weights that are shorter are nothing, and have no direction to keep
# Of a layer's median length: some channels of ImageNet's weights are all but zero.
_LEAST_SHARE = 0.1
_SHOWN = 3  # names in an error: enough to see which kind of part is missing

Constants = Mapping[str, NDArray[np.float32]]  # by their names in the detector


@dataclass(frozen=True)
class _Folded:
    """A convolution and the norm behind it."""

    name: str
    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    norm_name: str


def fill(detector: Detector, graph: onnx.GraphProto, crop_NHWC: NDArray[np.uint8]) -> None:
    """Make the detector compute what the graph does, with the gate off.

    Args:
        detector: its noise head and gate stay as they are, and so does the length of each channel's weights
            before a norm: a step of training then moves them as far as it did before.
        graph: in fp32, with the names that the detector has for its parts.
        crop_NHWC: uint8 [N, S, S, 3], some hundreds as they will be trained on.

    Raises:
        DetectorError: something of the detector is not in the graph, or has another shape there.
    """
    constants = _constants(graph)
    behind = _norms_behind(detector, crop_NHWC[:1])
    folded = [one for one in behind if f"{one.norm_name}.weight" not in constants]
    lengths = {one.name: _usual(_lengths(one.conv)) for one in folded}
    _put(detector, folded, constants)
    moments = _moments(detector, folded, crop_NHWC)
    for one in folded:
        _settle(one, *moments[one.name], lengths[one.name])


def _constants(graph: onnx.GraphProto) -> Constants:
    """Weights by name; the biases of convolutions by their nodes, since one that equals another bears its name."""
    arrays = {
        one.name.removeprefix(_IN_GRAPH): numpy_helper.to_array(one) for one in graph.initializer
    }
    biases = {}
    for node in graph.node:
        if node.op_type == "Conv":
            weight, *bias = (name.removeprefix(_IN_GRAPH) for name in node.input[1:])
            if bias:
                biases[_bias_of(weight)] = arrays.get(bias[0])
            elif weight in arrays:  # the exporter leaves out what is zero
                biases[_bias_of(weight)] = np.zeros(len(arrays[weight]), np.float32)
    return arrays | {name: values for name, values in biases.items() if values is not None}


def _bias_of(weight: str) -> str:
    return f"{weight.removesuffix('.weight')}.bias"


def _norms_behind(detector: Detector, crop_NHWC: NDArray[np.uint8]) -> list[_Folded]:
    """Every convolution whose output is a norm's input, as it is and nothing else's."""
    made: dict[int, tuple[str, nn.Conv2d, Tensor]] = {}
    found: list[_Folded] = []

    def after_conv(name: str, conv: nn.Module, _inputs: object, output: Tensor) -> None:
        # The output is kept, so that its id stays its own.
        made[id(output)] = (name, cast("nn.Conv2d", conv), output)

    def before_norm(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            conv_name, conv, _ = made[id(inputs[0])]
            found.append(_Folded(conv_name, conv, cast("nn.BatchNorm2d", norm), name))

    hooks = []
    for name, module in detector.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(partial(after_conv, name)))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(partial(before_norm, name)))
    try:
        _look(detector, crop_NHWC)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _put(detector: Detector, folded: Iterable[_Folded], constants: Constants) -> None:
    """The graph's weights, and norms that do nothing but add the folded bias."""
    state = detector.state_dict()
    wanted = {name for name in state if name.startswith(_PARTS) and not _counts(name)}
    given: dict[str, Tensor] = {}
    for one in folded:
        if f"{one.name}.bias" in constants:  # else it is named below, among what is missing
            given |= _adding(one, torch.from_numpy(constants[f"{one.name}.bias"].copy()))
    for name in (wanted - given.keys()) & constants.keys():
        given[name] = torch.from_numpy(constants[name].copy())
    missing = sorted(wanted - given.keys())
    if missing:
        raise DetectorError(
            f"the graph does not hold {', '.join(missing[:_SHOWN])}"
            f"{' and more' if len(missing) > _SHOWN else ''} under the name that this detector has for it: "
            "take the [detector] that the bundle was made with, or start from its run's folder"
        )
    for name, value in given.items():
        if value.shape != state[name].shape:
            raise DetectorError(
                f"{name} is {list(value.shape)} in the graph and {list(state[name].shape)} here: "
                "take the [detector] that the bundle was made with"
            )
    detector.load_state_dict(state | given)


def _adding(one: _Folded, bias_C: Tensor) -> dict[str, Tensor]:
    """A norm that adds the folded bias, and a convolution without one of its own."""
    nothing_C, ones_C = torch.zeros_like(bias_C), torch.ones_like(bias_C)
    own = {} if one.conv.bias is None else {f"{one.name}.bias": nothing_C}
    return own | {
        f"{one.norm_name}.weight": ones_C * (1 + one.norm.eps) ** 0.5,
        f"{one.norm_name}.bias": bias_C,
        f"{one.norm_name}.running_mean": nothing_C,
        f"{one.norm_name}.running_var": ones_C,
    }


def _counts(name: str) -> bool:
    return name.endswith(".num_batches_tracked")


def _moments(
    detector: Detector, folded: Iterable[_Folded], crop_NHWC: NDArray[np.uint8]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of each convolution's output channels, in fp64."""
    sums = {one.name: torch.zeros(3, one.conv.out_channels, dtype=torch.float64) for one in folded}

    def add(name: str, _conv: nn.Module, _inputs: object, output_NCHW: Tensor) -> None:
        values_NCHW = output_NCHW.detach().cpu().double()
        sums[name][0] += values_NCHW.sum(dim=(0, 2, 3))
        sums[name][1] += values_NCHW.square().sum(dim=(0, 2, 3))
        sums[name][2] += values_NCHW[:, 0].numel()

    hooks = [one.conv.register_forward_hook(partial(add, one.name)) for one in folded]
    try:
        for first in range(0, len(crop_NHWC), _AT_ONCE):
            _look(detector, crop_NHWC[first : first + _AT_ONCE])
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name, (total, squares, count) in sums.items():
        mean = total / count
        found[name] = (mean, (squares / count - mean.square()).clamp(min=0))
    return found


def _settle(one: _Folded, mean_C: Tensor, variance_C: Tensor, length_C: Tensor) -> None:
    """Give the norm those moments, the weights their length of before, and leave the function as it is."""
    device = one.conv.weight.device
    now_C = _lengths(one.conv)
    both_C = torch.minimum(now_C, length_C) > _LEAST_LENGTH
    scale_C = torch.where(both_C, length_C / now_C, torch.ones_like(now_C))
    offset_C = one.norm.bias.detach().cpu().double() + mean_C
    gain_C = (scale_C.square() * variance_C + one.norm.eps).sqrt() / scale_C
    with torch.no_grad():
        one.conv.weight.mul_(scale_C[:, None, None, None].to(one.conv.weight))
        for ours, value_C in (
            (one.norm.weight, gain_C),
            (one.norm.bias, offset_C),
            (one.norm.running_mean, scale_C * mean_C),
            (one.norm.running_var, scale_C.square() * variance_C),
        ):
            cast("Tensor", ours).copy_(value_C.to(device))


def _lengths(conv: nn.Conv2d) -> Tensor:
    """The Euclidean norm of each output channel's weights, in fp64."""
    length_C: Tensor = torch.linalg.vector_norm(
        conv.weight.detach().cpu().double().flatten(1), dim=1
    )
    return length_C


def _usual(length_C: Tensor) -> Tensor:
    """No channel much shorter than the others: its norm would multiply every step of a training."""
    return length_C.clamp(min=_LEAST_SHARE * float(length_C.median()))


def _look(detector: Detector, crop_NHWC: NDArray[np.uint8]) -> None:
    """Score crops, as an evaluation does."""
    was_training = detector.training
    detector.eval()
    device = detector.classifier.weight.device
    with torch.no_grad():
        detector.classify(torch.from_numpy(crop_NHWC).to(device))
    detector.train(was_training)
