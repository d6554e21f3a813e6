"""Which plan is loaded, and how batches are cut for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.bundle.manifest import BundleError, EngineFile, Manifest, PreprocessSpec
from engines.runtime.executor import bucket_for, buckets, cut, halved
from engines.runtime.selection import OtherMachineError, choose_plan
from tests.support.bundles import tiny_manifest

SPEC = PreprocessSpec(version="1", crop_policy="center", crop_px=32)


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
    return tiny_manifest(SPEC).model_copy(update={"engines": plans})


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
