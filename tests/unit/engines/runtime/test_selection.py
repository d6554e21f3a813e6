"""Which runtime is taken, which is not, and the reasons: decided on plain values."""

from dataclasses import replace

import pytest

from engines.bundle.manifest import BundleError, EngineFile, Manifest, Precision, PreprocessSpec
from engines.runtime.machine import Machine
from engines.runtime.selection import Device, needed_paths, one_per_file, select_runtimes
from tests.support.bundles import tiny_manifest

SPEC = PreprocessSpec(version="1", crop_policy="center", crop_px=32)
BARE = Machine(frozenset({"onnxruntime"}), frozenset({"avx2"}), None)
RICH = Machine(
    frozenset({"onnxruntime", "openvino", "tensorrt"}),
    frozenset({"avx2", "avx512_bf16", "avx512_vnni"}),
    "9.0",
)
ALL = ("tensorrt", "openvino-cpu", "onnxruntime-cpu")
PLANS = ("plans/sm90.plan", "plans/sm86.plan")


def engine(path: str, runtime: str, precision: Precision) -> EngineFile:
    """One entry of a manifest's engines."""
    return EngineFile(path=path, runtime=runtime, precision=precision)


def manifest_for(*runtimes: str, bf16: bool = True, engines: bool = True) -> Manifest:
    """A manifest with plans for a GPU and int8 graphs for both runtimes on the CPU."""
    files = (
        *(engine(path, "tensorrt", "fp16") for path in PLANS),
        engine("model.int8.onnx", "onnxruntime-cpu", "int8"),
        engine("openvino.int8.onnx", "openvino-cpu", "int8"),
    )
    tolerances = {"fp32": 1e-3, "int8": 1.0, "fp16": 0.1} | ({"bf16": 0.2} if bf16 else {})
    return tiny_manifest(SPEC).model_copy(
        update={
            "runtimes": runtimes,
            "tolerances": tolerances,
            "engines": files if engines else (),
        }
    )


def labels(name: str, manifest: Manifest, machine: Machine, device: Device = "auto") -> list[str]:
    """What would be opened, in order."""
    return [one.label for one in select_runtimes(name, manifest, machine, device).candidates]


def test_the_order_is_the_manifests_and_own_files_come_before_the_model() -> None:
    assert labels("auto", manifest_for(*ALL), RICH) == [
        "tensorrt (plans/sm90.plan, plans/sm86.plan)",
        "openvino-cpu int8 (openvino.int8.onnx)",
        "openvino-cpu bf16 (model.onnx)",
        "openvino-cpu fp32 (model.onnx)",
        "onnxruntime-cpu int8 (model.int8.onnx)",
        "onnxruntime-cpu fp32 (model.onnx)",
    ]
    first = labels("auto", manifest_for(*reversed(ALL)), RICH)[0]
    assert first == "onnxruntime-cpu int8 (model.int8.onnx)"


def test_each_that_is_passed_over_has_its_reason() -> None:
    weighed = select_runtimes("auto", manifest_for("abacus", *ALL), BARE)
    assert [one.label for one in weighed.candidates] == ["onnxruntime-cpu fp32 (model.onnx)"]
    int8 = "onnxruntime-cpu int8 (model.int8.onnx)"
    reasons = {one.what: one.why for one in weighed.skipped}
    assert list(reasons) == ["abacus", "tensorrt", "openvino-cpu", int8]
    assert "this release has onnxruntime-cpu, openvino-cpu, tensorrt" in reasons["abacus"]
    assert "no NVIDIA GPU with a working driver" in reasons["tensorrt"]
    assert "pip install openvino" in reasons["openvino-cpu"]


def test_a_gpu_without_the_package_or_without_a_plan_is_passed_over() -> None:
    without = replace(RICH, packages=BARE.packages)
    (missing, _) = select_runtimes("auto", manifest_for(*ALL), without).skipped
    assert str(missing) == "tensorrt: the package tensorrt is not installed (pip install tensorrt)"
    (no_plan,) = select_runtimes("auto", manifest_for(*ALL, engines=False), RICH).skipped
    assert "no plan for it: make one with `python -m engines compile`" in no_plan.why


def test_bf16_needs_the_processor() -> None:
    older = replace(RICH, processor=frozenset({"avx2", "avx512_vnni"}))
    weighed = select_runtimes("openvino-cpu", manifest_for(*ALL), older)
    assert "bf16" not in {one.precision for one in weighed.candidates}
    assert [str(one) for one in weighed.skipped] == [
        "openvino-cpu bf16 (model.onnx): the processor has none of amx_bf16, avx512_bf16"
    ]


def test_int8_is_taken_only_where_the_processor_gains_by_it() -> None:
    """It can be opened all the same, to be compared and timed."""
    manifest = manifest_for("onnxruntime-cpu")
    weighed = select_runtimes("auto", manifest, BARE)
    (slow,) = weighed.skipped
    assert slow.what == "onnxruntime-cpu int8 (model.int8.onnx)"
    assert slow.why == "the processor has none of amx_int8, asimddp, avx512_vnni, avx_vnni"
    assert [one.label for one in one_per_file(weighed, manifest)] == [
        "onnxruntime-cpu fp32 (model.onnx)",
        "onnxruntime-cpu int8 (model.int8.onnx)",
    ]


def test_an_int8_that_overflows_on_the_processor_is_not_even_possible() -> None:
    manifest = manifest_for("openvino-cpu")
    weighed = select_runtimes("auto", manifest, replace(RICH, processor=frozenset({"avx2"})))
    labels = [one.label for one in one_per_file(weighed, manifest)]
    assert labels == ["openvino-cpu fp32 (model.onnx)"]


def test_bf16_needs_a_measured_tolerance() -> None:
    weighed = select_runtimes("openvino-cpu", manifest_for(*ALL, bf16=False), RICH)
    assert "bf16" not in {one.precision for one in weighed.candidates}
    assert "no tolerance for bf16" in weighed.skipped[0].why


@pytest.mark.parametrize("machine", [BARE, RICH])
def test_a_cpu_that_is_asked_for_leaves_the_gpu_out(machine: Machine) -> None:
    weighed = select_runtimes("auto", manifest_for(*ALL), machine, "cpu")
    assert not any(one.on_gpu for one in weighed.candidates)
    assert weighed.skipped[0].why == "the settings ask for the cpu"


def test_a_gpu_that_is_asked_for_leaves_the_cpu_out() -> None:
    weighed = select_runtimes("auto", manifest_for(*ALL), RICH, "gpu")
    assert [one.runtime for one in weighed.candidates] == ["tensorrt"]


@pytest.mark.parametrize(("name", "device"), [("auto", "gpu"), ("tensorrt", "auto"), ("tensorrt", "gpu")])  # fmt: skip
def test_a_gpu_that_is_asked_for_and_not_there_is_refused(name: str, device: Device) -> None:
    """The CPU could, and must not."""
    with pytest.raises(BundleError, match=r"can run here.*install the driver"):
        select_runtimes(name, manifest_for(*ALL), BARE, device)


@pytest.mark.parametrize(
    ("name", "device", "said"),
    [
        ("onnx", "auto", "no runtime is called 'onnx': choose one of auto, onnxruntime-cpu"),
        ("tensorrt-rtx", "auto", "was not exported for 'tensorrt-rtx': choose one of tensorrt"),
        ("onnxruntime-cpu", "gpu", "contradict each other"),
        ("tensorrt", "cpu", "contradict each other"),
        ("auto", "npu", "no device is called 'npu'"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, device: Device, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        select_runtimes(name, manifest_for(*ALL), RICH, device)


def test_a_bundle_for_none_of_our_runtimes_is_refused_with_every_reason() -> None:
    with pytest.raises(BundleError, match=r"abacus: this release has .*; tensorrt: no NVIDIA GPU"):
        select_runtimes("auto", manifest_for("abacus", "tensorrt"), BARE)


def test_only_the_files_of_runtimes_that_are_there_are_kept() -> None:
    assert needed_paths(manifest_for(*ALL), BARE) == {"model.onnx", "model.int8.onnx"}
    assert needed_paths(manifest_for(*ALL), RICH) == {
        "model.onnx", "model.int8.onnx", "openvino.int8.onnx", *PLANS,
    }  # fmt: skip


def test_plans_can_be_taken_one_by_one() -> None:
    manifest = manifest_for(*ALL)
    found = one_per_file(select_runtimes("tensorrt", manifest, RICH), manifest)
    assert [one.label for one in found] == [f"tensorrt fp16 ({path})" for path in PLANS]
