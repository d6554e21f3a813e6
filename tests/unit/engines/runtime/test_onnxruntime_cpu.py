"""ONNX Runtime: it computes the model's logits, and refuses a model that is not as described."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.manifest import BundleError, Manifest, PreprocessSpec
from engines.runtime.onnxruntime_cpu import OnnxRuntimeCpu
from engines.runtime.protocol import Runtime, RuntimeFailure
from tests.support.bundles import reference_logit_N, tiny_manifest, tiny_model
from tests.support.images import noise_HWC

SPEC = PreprocessSpec(version="1", crop_policy="center", crop_px=32)
MANIFEST = tiny_manifest(SPEC)


def opened(model: onnx.ModelProto, manifest: Manifest = MANIFEST, threads: int = 1) -> Runtime:
    """The model in the runtime."""
    return OnnxRuntimeCpu(manifest, model.SerializeToString(), threads=threads)


def crops(count: int) -> np.ndarray:
    """Crops of noise."""
    return np.stack([noise_HWC(32, 32, seed) for seed in range(count)])


@pytest.mark.parametrize("count", [1, 2, 8])
def test_the_logits_are_the_models(count: int) -> None:
    runtime = opened(tiny_model(32))
    logit_N = runtime.infer(crops(count))
    assert logit_N.shape == (count,)
    assert logit_N.dtype == np.float32
    np.testing.assert_allclose(logit_N, reference_logit_N(crops(count)), atol=1e-5)


def test_it_names_itself_and_the_bytes_that_it_loaded() -> None:
    model = tiny_model(32)
    runtime = opened(model)
    assert (runtime.name, runtime.precision, runtime.batch_max) == ("onnxruntime-cpu", "fp32", 8)
    assert runtime.engine_sha256 == hashlib.sha256(model.SerializeToString()).hexdigest()


def test_the_number_of_threads_does_not_change_the_logits() -> None:
    one, two = (opened(tiny_model(32), threads=threads).infer(crops(8)) for threads in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_it_may_be_called_from_many_threads_at_once() -> None:
    runtime = opened(tiny_model(32))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(runtime.infer, [crops(5)] * 40))
    for logit_N in answers:
        np.testing.assert_allclose(logit_N, reference_logit_N(crops(5)), atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (np.zeros((9, 32, 32, 3), np.uint8), "9 crops in a batch; this bundle takes 1 to 8"),
        (np.zeros((0, 32, 32, 3), np.uint8), "0 crops in a batch"),
        (np.zeros((1, 32, 32, 3), np.float32), "got float32"),
        (np.zeros((1, 33, 32, 3), np.uint8), r"got uint8 \[1, 33, 32, 3\]"),
        (np.zeros((32, 32, 3), np.uint8), "expected uint8 crops"),
    ],
)
def test_a_batch_of_another_shape_type_or_size_is_the_callers_error(
    batch: np.ndarray, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        opened(tiny_model(32)).infer(batch)


def test_after_closing_it_says_so() -> None:
    runtime = opened(tiny_model(32))
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeFailure, match="closed"):
        runtime.infer(crops(1))


def test_no_threads_are_the_callers_error() -> None:
    with pytest.raises(ValueError, match="threads"):
        opened(tiny_model(32), threads=0)


def with_constant(name: str, value: np.ndarray) -> onnx.ModelProto:
    """The tiny model with one of its constants changed."""
    model = tiny_model(32)
    for constant in model.graph.initializer:
        if constant.name == name:
            constant.CopyFrom(numpy_helper.from_array(value, name))
    return model


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_is_a_failure(number: float) -> None:
    runtime = opened(with_constant("bias", np.array([number], np.float32)))
    with pytest.raises(RuntimeFailure, match=r"crop \[0, 1\] of the batch is not finite"):
        runtime.infer(crops(2))


def test_a_model_that_fails_while_it_runs_is_a_failure() -> None:
    """A reshape of N logits into rows of seven can only fail once N is known."""
    model = tiny_model(32)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 7], np.int64), "sevens"))
    model.graph.node[-1].input[0] = "logit_N7"
    rows = helper.make_node("Reshape", ["logit_N1", "sevens"], ["logit_N7"])
    model.graph.node.insert(len(model.graph.node) - 1, rows)
    runtime = opened(model)
    assert runtime.infer(crops(7)).shape == (7,)
    with pytest.raises(RuntimeFailure, match="onnxruntime-cpu failed on 3 crops"):
        runtime.infer(crops(3))


def _rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "pixels"
    model.graph.node[0].input[0] = "pixels"


def _rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "score"
    model.graph.node[-1].output[0] = "score"


def _fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _take_floats(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _give_two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(
        helper.make_tensor_value_info("logit_N1", TensorProto.FLOAT, ["N", 1])
    )


def _give_a_column(model: onnx.ModelProto) -> None:
    del model.graph.output[:], model.graph.node[-1:]
    model.graph.node[-1].output[0] = "logit_N"
    model.graph.output.append(helper.make_tensor_value_info("logit_N", TensorProto.FLOAT, ["N", 1]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_rename_input, "input"),
        (_take_floats, "input"),
        (_fix_batch, "input"),
        (_rename_output, "output"),
        (_give_two_outputs, "output"),
        (_give_a_column, "output"),
    ],
)
def test_a_graph_that_is_not_as_the_manifest_says_is_refused(
    change: Callable[[onnx.ModelProto], None], said: str
) -> None:
    model = tiny_model(32)
    change(model)
    with pytest.raises(BundleError, match=rf"model\.onnx has the {said}"):
        opened(model)


def test_a_graph_of_another_size_is_refused() -> None:
    with pytest.raises(BundleError, match="the manifest says"):
        opened(tiny_model(64))


@pytest.mark.parametrize("data", [b"", b"not a model", bytes(1000)])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx cannot be loaded"):
        OnnxRuntimeCpu(MANIFEST, data, threads=1)


def test_a_model_of_an_unknown_operator_is_refused() -> None:
    model = tiny_model(32)
    model.graph.node[1].op_type = "Frobnicate"
    with pytest.raises(BundleError, match=r"Frobnicate.*export it again"):
        opened(model)


def test_a_model_with_weights_in_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No digest covers that file, and it would be looked for in the working directory."""
    onnx.save_model(
        tiny_model(32),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"external data.*weights inside"):
        OnnxRuntimeCpu(MANIFEST, (tmp_path / "model.onnx").read_bytes(), threads=1)
