"""Weights come back out of an exported graph: the same function, and norms that training goes on from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from trainer.bundle.export import write_onnx
from trainer.config import DetectorConfig
from trainer.detector import Detector, DetectorError
from trainer.detector.unfolding import fill

# With convolutions of a bias of their own (squeeze and excite), and with none but folded ones.
BACKBONES = ("test_efficientnet", "test_resnet")


@dataclass(frozen=True)
class Exported:
    """A detector with the weights and norms of one that was trained, and its graph."""

    detector: Detector
    graph: onnx.GraphProto


def config(backbone: str) -> DetectorConfig:
    """A small one."""
    return DetectorConfig(backbone=backbone, head_width=8, dropout_p=0.0)


def crops(count: int = 24) -> NDArray[np.uint8]:
    """Noise of several strengths."""
    random = np.random.default_rng(5)
    return random.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=BACKBONES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """No norm and no bias is left at what it is born with."""
    torch.manual_seed(0)
    detector = Detector(config(request.param)).eval()
    for name, value in detector.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.3
            value.uniform_(low, low + 1)
    path = tmp_path_factory.mktemp("unfolding") / "model.onnx"
    return Exported(detector, write_onnx(detector, path, 64, gated=False).graph)


def another(exported: Exported) -> Detector:
    """Of the same kind, with first weights of its own."""
    torch.manual_seed(1)
    kind = "efficientnet" if hasattr(exported.detector.backbone, "blocks") else "resnet"
    return Detector(config(f"test_{kind}"))


def stem(detector: Detector) -> nn.Conv2d:
    """The first convolution, which a norm follows."""
    return next(one for one in detector.backbone.modules() if isinstance(one, nn.Conv2d))


def logits(detector: Detector, image_NHWC: NDArray[np.uint8]) -> torch.Tensor:
    """In whatever mode the detector is."""
    with torch.no_grad():
        return detector.classify(torch.from_numpy(image_NHWC))


def test_the_filled_detector_computes_what_the_graph_does(exported: Exported) -> None:
    """On crops that its norms were not measured on, too."""
    detector = another(exported)
    fill(detector, exported.graph, crops())
    unknown = np.random.default_rng(9).integers(0, 90, (8, 64, 64, 3), dtype=np.uint8)
    expected = logits(exported.detector, unknown)
    torch.testing.assert_close(logits(detector.eval(), unknown), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 1e-4  # else everything would be close


def test_norms_that_go_by_their_batch_find_what_they_were_told_to_expect(
    exported: Exported,
) -> None:
    """In training, on the very crops that were measured, the function is the same again."""
    detector = another(exported)
    fill(detector, exported.graph, crops())
    expected = logits(detector.eval(), crops())
    found = logits(detector.train(), crops())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_each_channel_keeps_the_length_of_its_weights(exported: Exported) -> None:
    """What a graph holds is shorter by gain and deviation, and a step would move it too far."""
    detector = another(exported)
    length_C = stem(detector).weight.detach().flatten(1).norm(dim=1)
    fill(detector, exported.graph, crops())
    now_C = stem(detector).weight.detach().flatten(1).norm(dim=1)
    torch.testing.assert_close(now_C, length_C, atol=0, rtol=1e-4)


def test_head_and_gate_stay_as_they_are(exported: Exported) -> None:
    """A graph without a gate has none of them."""
    detector = another(exported)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    fill(detector, exported.graph, crops())
    kept = [name for name in before if name.startswith(("head.", "gate."))]
    assert kept
    for name in kept:
        assert torch.equal(detector.state_dict()[name], before[name])


@pytest.mark.parametrize("where", ["graph", "detector", "the whole layer"])
def test_a_dead_channel_stays_a_number(exported: Exported, where: str) -> None:
    """Weights of zeros have no length to keep, and none to give."""
    graph = onnx.GraphProto()
    graph.CopyFrom(exported.graph)
    detector = another(exported)
    name = next(one.input[1] for one in graph.node if one.op_type == "Conv")
    if where == "graph":
        tensor = next(one for one in graph.initializer if one.name == name)
        values = numpy_helper.to_array(tensor).copy()
        values[0] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, name))
    else:
        with torch.no_grad():
            whole = where == "the whole layer"
            stem(detector).weight[: None if whole else 1] *= 1e-20 if whole else 1e-6
    fill(detector, graph, crops())
    assert all(torch.isfinite(one).all() for one in detector.state_dict().values())
    found = logits(detector.eval(), crops())
    same = torch.allclose(found, logits(exported.detector, crops()), atol=1e-5)
    assert same == (where != "graph")
    norms = [one for one in detector.backbone.modules() if isinstance(one, nn.BatchNorm2d)]
    assert max(float(one.weight.detach().abs().max()) for one in norms) < 1e3


def test_biases_that_are_zero_and_that_the_exporter_leaves_out_are_zero_again(
    tmp_path: Path,
) -> None:
    """Those of squeeze and excite are born so."""
    torch.manual_seed(0)
    first = Detector(config("test_efficientnet")).eval()
    graph = write_onnx(first, tmp_path / "model.onnx", 64, gated=False).graph
    torch.manual_seed(1)
    detector = Detector(config("test_efficientnet"))
    for name, value in detector.named_parameters():
        if name.endswith("bias"):
            nn.init.ones_(value)
    fill(detector, graph, crops())
    torch.testing.assert_close(
        logits(detector.eval(), crops()), logits(first, crops()), atol=1e-6, rtol=1e-4
    )


def test_a_graph_of_another_network_is_refused(exported: Exported) -> None:
    """It says which part is missing, and what to do."""
    kind = "resnet" if hasattr(exported.detector.backbone, "blocks") else "efficientnet"
    with pytest.raises(DetectorError, match=r"does not hold backbone\..* take the \[detector\]"):
        fill(Detector(config(f"test_{kind}")), exported.graph, crops(2))


def test_a_part_of_another_shape_is_refused(exported: Exported) -> None:
    """Under a name that both have."""
    graph = onnx.GraphProto()
    graph.CopyFrom(exported.graph)
    tensor = next(one for one in graph.initializer if one.name.endswith("classifier.weight"))
    wider = np.concatenate([numpy_helper.to_array(tensor)] * 2, axis=1)
    tensor.CopyFrom(numpy_helper.from_array(wider, tensor.name))
    with pytest.raises(DetectorError, match=r"classifier\.weight is \[1, \d+\] in the graph and"):
        fill(another(exported), graph, crops(2))


def test_the_mode_that_a_detector_is_in_stays(exported: Exported) -> None:
    """Training goes on as it was asked to."""
    detector = another(exported).train()
    fill(detector, exported.graph, crops(2))
    assert detector.training
