"""Which runtime is taken, which is not, and the reasons: decided on plain values."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.bundle.manifest import BundleError, EngineFile, Manifest, Precision, PreprocessSpec
from engines.runtime.executor import bucket_for, buckets, cut, halved
from engines.runtime.machine import Machine
from engines.runtime.selection import (
    Device,
    OtherMachineError,
    choose_plan,
    needed_paths,
    one_per_file,
    select_runtimes,
)
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


CENTER = PreprocessSpec(version="1", crop_policy="center", crop_px=32)


def plan(
    capability: str = "9.0",
    *,
    runtime: str = "tensorrt",
    version: str = "11.4.0",
    compatible: bool = False,
    name: str = "a",
) -> EngineFile:
    """A plan as a manifest lists it."""
    return EngineFile(
        path=f"plans/{name}.plan",
        runtime=runtime,
        precision="fp32",
        compute_capability=capability,
        runtime_version=version,
        hardware_compatible=compatible,
    )


def having(*plans: EngineFile) -> Manifest:
    """The tiny manifest with these plans."""
    return tiny_manifest(CENTER).model_copy(update={"engines": plans})


def test_the_plan_of_this_architecture_comes_before_one_that_also_runs_on_it() -> None:
    manifest = having(plan("8.0", compatible=True, name="any"), plan("9.0", name="exact"))
    assert choose_plan(manifest, "tensorrt", "11.4.0", "9.0").path == "plans/exact.plan"


def test_of_equals_the_first_is_chosen() -> None:
    manifest = having(plan(name="preferred"), plan(name="other"))
    assert choose_plan(manifest, "tensorrt", "11.4.0", "9.0").path == "plans/preferred.plan"


def test_a_compatible_plan_runs_on_later_architectures_and_no_earlier_ones() -> None:
    manifest = having(plan("8.9", compatible=True))
    assert choose_plan(manifest, "tensorrt", "11.4.0", "12.0").compute_capability == "8.9"
    with pytest.raises(BundleError, match=r"8\.9 or later; this one has 8\.6: compile"):
        choose_plan(manifest, "tensorrt", "11.4.0", "8.6")


def test_a_plan_for_another_gpu_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        OtherMachineError, match=r"capability 8\.9, 12\.0; this one has 9\.0: .*--target tensorrt`"
    ):
        choose_plan(having(plan("8.9"), plan("12.0", name="b")), "tensorrt", "11.4.0", "9.0")


def test_a_plan_of_another_release_is_refused_with_what_to_do() -> None:
    with pytest.raises(BundleError, match=r"tensorrt 11\.3\.0, .* has 11\.4\.0: install that"):
        choose_plan(having(plan(version="11.3.0")), "tensorrt", "11.4.0", "9.0")


def test_the_other_library_s_plans_are_no_plans() -> None:
    with pytest.raises(BundleError, match="no plan for tensorrt: compile the bundle"):
        choose_plan(having(plan(runtime="tensorrt-rtx")), "tensorrt", "11.4.0", "9.0")


def test_a_plan_that_names_no_architecture_fits_none() -> None:
    nameless = plan(compatible=True).model_copy(update={"compute_capability": None})
    with pytest.raises(BundleError, match=r"this one has 9\.0"):
        choose_plan(having(nameless), "tensorrt", "11.4.0", "9.0")


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (8, (1, 2, 4, 8)),
        (9, (1, 2, 4, 8, 9)),
        (48, (1, 2, 4, 8, 16, 32, 48)),
    ],
)
def test_buckets_are_powers_of_two_and_the_largest(most: int, expected: tuple[int, ...]) -> None:
    assert buckets(most) == expected


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        buckets(0)


@given(count=st.integers(1, 1000), most=st.integers(1, 256))
def test_every_crop_is_in_one_piece_that_fits_a_bucket(count: int, most: int) -> None:
    pieces = cut(count, most)
    assert sum(pieces) == count
    for size in pieces:
        assert 1 <= size <= bucket_for(size, buckets(most)) <= min(most, max(1, 2 * size - 1))


def test_a_large_batch_becomes_two_pieces_that_overlap_and_a_small_one_stays_whole() -> None:
    assert cut(32, 64) == (16, 16)
    assert cut(17, 64) == (9, 8)
    assert cut(15, 64) == (15,)
    assert cut(130, 64) == (44, 43, 43)


def test_halving_ends() -> None:
    assert [halved(most) for most in (64, 3, 2, 1)] == [32, 1, 1, None]
