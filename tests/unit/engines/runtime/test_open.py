"""Opening a runtime: the line that says why, and what happens where a plan cannot be loaded."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from engines.bundle.manifest import BundleError, EngineFile, Manifest, PreprocessSpec
from engines.runtime import open_runtime
from engines.runtime.machine import Machine, this_machine
from tests.support.bundles import reference_logit_N, tiny_manifest, tiny_model

SPEC = PreprocessSpec(version="1", crop_policy="center", crop_px=32)
FILES: Mapping[str, bytes] = {
    "model.onnx": tiny_model(32).SerializeToString(),
    "sm90.plan": b"a plan for nobody",
}
PLAN = EngineFile(path="sm90.plan", runtime="tensorrt", precision="fp32")
# Finds a GPU and the package; what is opened on it then fails, as a plan of another release does.
WITH_GPU = Machine(frozenset({"onnxruntime", "tensorrt"}), frozenset(), "9.0")


def manifest_for(*runtimes: str) -> Manifest:
    """The tiny manifest, exported for these runtimes, with a plan that no GPU can load."""
    return tiny_manifest(SPEC).model_copy(update={"runtimes": runtimes, "engines": (PLAN,)})


def chosen(name: str, manifest: Manifest, **how: Any) -> tuple[str, Mapping[str, Any]]:  # noqa: ANN401  open_runtime's
    """The runtime's name, and the line that was logged of it."""
    with capture_logs() as lines:
        runtime = open_runtime(name, manifest, FILES, 1, **how)
    crop_NHWC = np.full((1, 32, 32, 3), 90, np.uint8)
    np.testing.assert_allclose(runtime.infer(crop_NHWC), reference_logit_N(crop_NHWC), atol=1e-5)
    (line,) = [one for one in lines if one["event"] == "runtime_chosen"]
    return runtime.name, line


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_a_runtime_is_opened_by_its_name(name: str) -> None:
    manifest = manifest_for("onnxruntime-cpu", "openvino-cpu")
    assert chosen(name, manifest)[0] == name


def test_auto_says_what_it_chose_and_why_not_the_others() -> None:
    manifest = manifest_for("tensorrt", "openvino-cpu", "onnxruntime-cpu")
    machine = replace(this_machine(), packages=frozenset({"onnxruntime"}), gpu=None)
    name, line = chosen("auto", manifest, machine=machine)
    assert name == line["runtime"] == "onnxruntime-cpu"
    assert (line["precision"], line["files"]) == ("fp32", ["model.onnx"])
    assert (line["asked_runtime"], line["asked_device"]) == ("auto", "auto")
    assert line["log_level"] == "info"
    gpu, openvino = line["skipped"]
    assert gpu.startswith("tensorrt: no NVIDIA GPU")
    assert openvino.startswith("openvino-cpu: the package openvino is not installed")


def test_auto_goes_on_from_a_plan_that_cannot_be_loaded_and_warns() -> None:
    name, line = chosen("auto", manifest_for("tensorrt", "onnxruntime-cpu"), machine=WITH_GPU)
    assert name == "onnxruntime-cpu"
    assert line["log_level"] == "warning"
    assert line["skipped"][-1].startswith("tensorrt (sm90.plan): ")


@pytest.mark.parametrize(
    "how", [{"name": "tensorrt"}, {"name": "auto", "device": "gpu"}], ids=["by name", "by device"]
)
def test_a_plan_that_cannot_be_loaded_is_the_end_where_a_gpu_is_asked_for(
    how: dict[str, Any],
) -> None:
    """The CPU could run the bundle, and nobody would see that the GPU does not."""
    with pytest.raises(BundleError, match=r"can run here.*tensorrt \(sm90\.plan\)"):
        open_runtime(
            manifest=manifest_for("tensorrt", "onnxruntime-cpu"),
            files=FILES,
            threads=1,
            machine=WITH_GPU,
            **how,
        )


def test_a_graph_that_cannot_be_loaded_is_the_end_always() -> None:
    """Digests agree by then, so the bundle was made wrongly; the next runtime would hide it."""
    manifest = manifest_for("onnxruntime-cpu", "openvino-cpu")
    with pytest.raises(BundleError, match=r"^model\.onnx cannot be loaded by ONNX Runtime"):
        open_runtime("auto", manifest, {"model.onnx": b"no graph"}, 1)
