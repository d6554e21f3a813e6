"""An engine is told from every other, and is warm before its first event."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.bundle.manifest import BundleError
from tests.unit.worker.engines import BATCH_MAX, FaultyRuntime, make_tiny_engine, with_runtime
from worker.engine import make_engine, warm_sizes, warm_up

WARM = 128  # the grey level of the crops that warm up


def test_two_loads_of_one_bundle_are_two_engines_with_the_same_scores(tmp_path: Path) -> None:
    """They share scores by their id, and no batch."""
    one = make_tiny_engine(tmp_path / "one")
    other = make_engine(one.bundle, "canary", "canary", None)
    assert one != other
    assert one.id == other.id
    assert (one.mode, other.mode) == ("enforce", "canary")


def test_an_unknown_threshold_set_is_refused(tmp_path: Path) -> None:
    """With those that there are."""
    bundle = make_tiny_engine(tmp_path).bundle
    with pytest.raises(BundleError, match="no threshold set 'strict': choose one of default"):
        make_engine(bundle, "deciding", "enforce", "strict")


@given(st.integers(1, 300))
def test_every_power_of_two_and_the_largest_batch_are_warm(largest: int) -> None:
    """From a single image to a full batch, none larger than it, in growing order."""
    sizes = warm_sizes(largest)
    assert sizes[0] == 1
    assert sizes[-1] == largest
    assert list(sizes) == sorted(set(sizes))
    assert {1 << bit for bit in range(10) if 1 << bit <= largest} <= set(sizes)


def test_warming_up_runs_no_more_than_the_engine_takes(tmp_path: Path) -> None:
    """A batch of sixteen images is cut for an engine that takes four crops."""
    runtime = FaultyRuntime()
    warm_up(with_runtime(make_tiny_engine(tmp_path), runtime).bundle, 16)
    assert [len(call) for call in runtime.calls] == [1, 2, BATCH_MAX]


@pytest.mark.parametrize("runtime", [FaultyRuntime(WARM), FaultyRuntime(call_max=2)])
def test_an_engine_that_cannot_be_warmed_up_is_refused(
    tmp_path: Path, runtime: FaultyRuntime
) -> None:
    """A failure and a lack of memory, before any event has met it."""
    bundle = with_runtime(make_tiny_engine(tmp_path), runtime).bundle
    with pytest.raises(BundleError, match="while it is warmed up"):
        warm_up(bundle, 16)
