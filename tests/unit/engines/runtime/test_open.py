"""Choosing a runtime: by name, or by the manifest's order."""

import pytest

from engines.manifest import BundleError, Manifest, PreprocessSpec
from engines.runtime import open_runtime
from tests.support.bundles import tiny_manifest, tiny_model

SPEC = PreprocessSpec(version="1", crop_policy="center", crop_px=32)
MODEL = tiny_model(32).SerializeToString()


def manifest_for(*runtimes: str) -> Manifest:
    """The tiny manifest, exported for these runtimes."""
    return tiny_manifest(SPEC).model_copy(update={"runtimes": runtimes})


@pytest.mark.parametrize("name", ["auto", "onnxruntime-cpu"])
def test_it_is_chosen_by_name_or_by_the_manifest(name: str) -> None:
    runtime = open_runtime(name, manifest_for("tensorrt", "onnxruntime-cpu"), MODEL, 1)
    assert runtime.name == "onnxruntime-cpu"


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(BundleError, match="choose one of auto, onnxruntime-cpu"):
        open_runtime("onnx", manifest_for("onnxruntime-cpu"), MODEL, 1)


def test_a_runtime_that_the_bundle_was_not_exported_for_is_refused() -> None:
    with pytest.raises(BundleError, match="was not exported for 'onnxruntime-cpu'"):
        open_runtime("onnxruntime-cpu", manifest_for("tensorrt"), MODEL, 1)


def test_a_bundle_for_none_of_our_runtimes_is_refused() -> None:
    with pytest.raises(BundleError, match="asks for the runtimes tensorrt"):
        open_runtime("auto", manifest_for("tensorrt"), MODEL, 1)
