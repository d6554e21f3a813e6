"""What holds of every runtime on the CPU: the model's logits, and no model that is not as described."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.bundle.manifest import BundleError, PreprocessSpec
from engines.runtime.onnxruntime import OnnxRuntimeCpu
from engines.runtime.openvino import OpenVinoCpu
from engines.runtime.protocol import Graph, Runtime, RuntimeFailure
from tests.support.bundles import reference_logit_N, tiny_manifest, tiny_model
from tests.support.images import noise_HWC

SPEC = PreprocessSpec(version="1", crop_policy="center", crop_px=32)
MANIFEST = tiny_manifest(SPEC)


def graph(data: bytes) -> Graph:
    """The bytes as the bundle's model."""
    return Graph("model.onnx", "fp32", data)


Kind = type[OnnxRuntimeCpu] | type[OpenVinoCpu]
Open = Callable[..., Runtime]


@pytest.fixture(name="kind", params=[OnnxRuntimeCpu, OpenVinoCpu], ids=["onnxruntime", "openvino"])
def _kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture(name="opened")
def _opened(kind: Kind) -> Open:
    """Opens a model in the runtime."""

    def opened(model: onnx.ModelProto, threads: int = 1) -> Runtime:
        return kind(MANIFEST, graph(model.SerializeToString()), threads=threads)

    return opened


def crops(count: int) -> np.ndarray:
    """Crops of noise."""
    return np.stack([noise_HWC(32, 32, seed) for seed in range(count)])


@pytest.mark.parametrize("count", [1, 2, 8])
def test_the_logits_are_the_models(opened: Open, count: int) -> None:
    runtime = opened(tiny_model(32))
    logit_N = runtime.infer(crops(count))
    assert logit_N.shape == (count,)
    assert logit_N.dtype == np.float32
    np.testing.assert_allclose(logit_N, reference_logit_N(crops(count)), atol=1e-5)


def test_it_names_itself_and_the_bytes_that_it_loaded(opened: Open) -> None:
    model = tiny_model(32)
    runtime = opened(model)
    name = "openvino-cpu" if isinstance(runtime, OpenVinoCpu) else "onnxruntime-cpu"
    assert (runtime.name, runtime.precision, runtime.batch_max) == (name, "fp32", 8)
    assert runtime.engine_sha256 == hashlib.sha256(model.SerializeToString()).hexdigest()


def test_the_number_of_threads_does_not_change_the_logits(opened: Open) -> None:
    one, two = (opened(tiny_model(32), threads=threads).infer(crops(8)) for threads in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_it_may_be_called_from_many_threads_at_once(opened: Open) -> None:
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
    opened: Open, batch: np.ndarray, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        opened(tiny_model(32)).infer(batch)


def test_after_closing_it_says_so(opened: Open) -> None:
    runtime = opened(tiny_model(32))
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeFailure, match="closed"):
        runtime.infer(crops(1))


def test_no_threads_are_the_callers_error(opened: Open) -> None:
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
def test_a_logit_that_is_not_finite_is_a_failure(opened: Open, number: float) -> None:
    runtime = opened(with_constant("bias", np.array([number], np.float32)))
    with pytest.raises(RuntimeFailure, match=r"crop \[0, 1\] of the batch is not finite"):
        runtime.infer(crops(2))


def test_a_model_that_fails_while_it_runs_is_a_failure(opened: Open) -> None:
    """That N logits and seven numbers cannot be added shows only once N is known."""
    model = tiny_model(32)
    for name, value in {"sevens": np.ones(7, np.float32), "tiny": np.float32(1e-30)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    final = model.graph.node.pop()
    final.output[0] = "all_N"
    model.graph.node.extend(
        [
            final,
            helper.make_node("Mul", ["all_N", "sevens"], ["seven"]),
            helper.make_node("ReduceSum", ["seven"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "tiny"], ["small"]),
            helper.make_node("Add", ["all_N", "small"], ["logit_N"]),
        ]
    )
    runtime = opened(model)
    assert runtime.infer(crops(7)).shape == (7,)
    with pytest.raises(RuntimeFailure, match="3 crops"):
        runtime.infer(crops(3))
    assert runtime.infer(crops(7)).shape == (7,)


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
    opened: Open, change: Callable[[onnx.ModelProto], None], said: str
) -> None:
    model = tiny_model(32)
    change(model)
    with pytest.raises(BundleError, match=rf"model\.onnx has the {said}"):
        opened(model)


def test_a_graph_of_another_size_is_refused(opened: Open) -> None:
    with pytest.raises(BundleError, match="the manifest says"):
        opened(tiny_model(64))


@pytest.mark.parametrize("data", [b"", b"not a model", bytes(1000)])
def test_what_is_no_model_is_refused(kind: Kind, data: bytes) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx cannot be loaded"):
        kind(MANIFEST, graph(data), threads=1)


def test_a_model_of_an_unknown_operator_is_refused(opened: Open) -> None:
    model = tiny_model(32)
    model.graph.node[1].op_type = "Frobnicate"
    with pytest.raises(BundleError, match=r"(?s)Frobnicate.*export it again"):
        opened(model)


def test_a_model_with_weights_in_another_file_is_refused(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        kind(MANIFEST, graph((tmp_path / "model.onnx").read_bytes()), threads=1)
