"""``verify --all-runtimes`` on a tiny bundle, as a user runs it, and a bundle with an int8 graph."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.bundle.manifest import EngineFile, read_manifest
from engines.compile.int8 import int8_graph
from tests.support.bundles import rewritten
from tests.support.engines_cli import main
from tests.support.images import noise_HWC

BOTH = ("onnxruntime-cpu", "openvino-cpu")
QUICK = ("--repetitions", "1")
NOISE = [noise_HWC(32, 32, seed) for seed in (1, 2, 3)]


def with_int8(
    directory: Path, crops: Sequence[NDArray[np.uint8]] = NOISE, tolerance: float = 0.5
) -> Path:
    """The bundle with an int8 graph, calibrated on these."""
    model = (directory / "model.onnx").read_bytes()
    data = int8_graph(model, "image_NHWC", crops)
    (directory / "model.int8.onnx").write_bytes(data)
    engine = EngineFile(path="model.int8.onnx", runtime="onnxruntime-cpu", precision="int8")
    tolerances = {**read_manifest(directory).tolerances, "int8": tolerance}
    return rewritten(directory, engines=(engine,), tolerances=tolerances)


def verified(
    directory: Path, capsys: pytest.CaptureFixture[str], *options: str, status: int = 0
) -> dict[str, Any]:
    """What the command says in JSON."""
    command = ["verify", "--all-runtimes", *QUICK, "--json", *options, str(directory)]
    assert main(command) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found
