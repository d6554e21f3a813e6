"""The exported graph is the plain backbone, takes raw bytes, and agrees with torch."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import PREPROCESS_VERSION
from trainer.bundle.export import make_golden, write_onnx
from trainer.config import DetectorConfig
from trainer.detector import Detector, classifier, gated_classifier

CONFIG = DetectorConfig(backbone="test_efficientnet", head_width=8)


class Plain(nn.Module):
    """A backbone and a linear layer, written down apart from the detector."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self._backbone, self._linear = detector.backbone, detector.classifier

    def forward(self, image_NHWC: Tensor) -> Tensor:
        """Logits [N]."""
        x_NCHW = image_NHWC.to(torch.float32).permute(0, 3, 1, 2) / 255
        x_NCHW = (x_NCHW - torch.full((3, 1, 1), 0.5)) / torch.full((3, 1, 1), 0.5)
        logit_N: Tensor = self._linear(self._backbone(x_NCHW)[-1].mean(dim=(2, 3)))[:, 0]
        return logit_N


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator occurs."""
    return Counter(node.op_type for node in model.graph.node)


@pytest.fixture(scope="module")
def detector() -> Detector:
    """A random detector whose logits are not all alike."""
    torch.manual_seed(0)
    detector = Detector(CONFIG)
    with torch.no_grad():
        detector.classifier.weight.mul_(30)
    return detector.eval()


@pytest.fixture(scope="module")
def graphs(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The plain and the gated graph."""
    folder = tmp_path_factory.mktemp("graphs")
    for gated in (False, True):
        write_onnx(detector, folder / f"{gated}.onnx", 64, gated=gated)
    return {gated: folder / f"{gated}.onnx" for gated in (False, True)}


def test_the_plain_graph_has_exactly_the_backbones_nodes(
    detector: Detector, graphs: dict[bool, Path], tmp_path: Path
) -> None:
    """With the gate off, no operator of the noise head or the gate is left."""
    program = torch.onnx.export(
        Plain(detector).eval(),
        (torch.zeros((2, 64, 64, 3), dtype=torch.uint8),),
        dynamic_shapes=({0: torch.export.Dim("N", min=1, max=4096)},),
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(tmp_path / "plain.onnx")
    plain = onnx.load(tmp_path / "plain.onnx")
    exported = onnx.load(graphs[False])
    assert operators(exported) == operators(plain)
    assert not any("head" in one.name or "gate" in one.name for one in exported.graph.initializer)
    gated = onnx.load(graphs[True])
    assert operators(gated)["Conv"] == operators(plain)["Conv"] + 5


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_onnxruntime_agrees_with_torch(
    detector: Detector,
    graphs: dict[bool, Path],
    gated: bool,  # noqa: FBT001  pytest passes it
    count: int,
) -> None:
    """Any batch of raw bytes gives torch's logits."""
    image_NHWC = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(graphs[gated], providers=["CPUExecutionProvider"])
    [found_N] = session.run(["logit_N"], {"image_NHWC": image_NHWC})
    infer = gated_classifier if gated else classifier
    expected_N = infer(detector)(image_NHWC)
    assert found_N.shape == (count,)
    assert np.abs(found_N - expected_N).max() < 1e-3


def test_the_graph_says_nothing_of_the_machine(graphs: dict[bool, Path]) -> None:
    """No path of the exporting machine is in the file, and no data beside it."""
    data = graphs[False].read_bytes()
    assert b"site-packages" not in data
    assert str(Path.cwd()).encode() not in data
    assert not list(graphs[False].parent.glob("*.data"))


def test_the_cast_comes_before_the_transpose(graphs: dict[bool, Path]) -> None:
    """Compilers for GPUs want floats before they move them."""
    kinds = [node.op_type for node in onnx.load(graphs[False]).graph.node]
    assert kinds.index("Cast") < kinds.index("Transpose")


def test_golden_files_are_decodable_and_differ(detector: Detector) -> None:
    """Three encodings of three sizes, and logits that are not one and the same."""
    spec = PreprocessSpec(version=PREPROCESS_VERSION, crop_policy="center", crop_px=64)
    golden = make_golden(classifier(detector), spec)
    assert len(golden.encoded) == 9
    assert np.ptp(golden.logit_K) > 0.01
    again = make_golden(classifier(detector), spec)
    assert again.encoded == golden.encoded
