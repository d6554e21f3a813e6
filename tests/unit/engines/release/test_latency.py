"""Two versions are timed in turns, and noise makes an interval wide, not a candidate slow."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.bundle.verify import load_bundle
from engines.release.measure import (
    CALLS,
    PAIRS,
    PAIRS_MIN,
    WARM_UP_CALLS,
    Clock,
    TimedBatch,
    median_interval,
    time_alternately,
    whole_images,
)
from engines.runtime import Runtime
from tests.support.bundles import make_tiny_bundle


class Noting:
    """A runtime that notes when it is called."""

    def __init__(self, runtime: Runtime, called: list[str], as_what: str) -> None:
        self._runtime, self._called, self._as_what = runtime, called, as_what
        self.name, self.precision = runtime.name, runtime.precision
        self.engine_sha256, self.batch_max = runtime.engine_sha256, runtime.batch_max
        self.close = runtime.close

    def infer(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The runtime's own logits."""
        self._called.append(self._as_what)
        return self._runtime.infer(image_NHWC)


Two = tuple[TimedBatch, TimedBatch, list[str]]


@pytest.fixture(name="two")
def _two(tmp_path: Path) -> Iterator[Two]:
    """One crop an image for the first, twelve in batches of at most eight for the second."""
    called: list[str] = []
    works = []
    with ExitStack() as opened:
        for what, crops in (("one", 1), ("other", 12)):
            bundle = load_bundle(make_tiny_bundle(tmp_path / what, max_crops=crops))
            opened.callback(bundle.runtime.close)
            runtime = Noting(bundle.runtime, called, what)
            works.append(whole_images(runtime, bundle.manifest, 1))
        yield works[0], works[1], called


def ticking(step_s: float) -> Clock:
    """A clock that goes on by so much whenever somebody looks at it."""
    times = (step_s * tick for tick in count())
    return lambda: next(times)


def test_which_goes_first_changes_from_pair_to_pair(two: Two) -> None:
    """So that what comes second in a pair, on a machine that cools or warms, is either as often."""
    one, other, called = two
    pairs = len(time_alternately(one, other, ticking(100.0)))
    image, image_of_12 = ["one"], ["other"] * 2  # which is more than a batch
    first, second = image * CALLS, image_of_12 * CALLS
    turns = [first + second, second + first] * (pairs // 2)
    warm_up = image * WARM_UP_CALLS + image_of_12 * WARM_UP_CALLS
    assert called == warm_up + [each for turn in turns for each in turn]


def test_a_slow_pair_ends_at_the_budget_but_never_with_too_few(two: Two) -> None:
    one, other, _ = two
    assert len(time_alternately(one, other, ticking(100.0))) == PAIRS_MIN
    assert len(time_alternately(one, other, ticking(0.01))) == PAIRS


def test_a_time_is_that_of_an_image_whatever_its_crops_and_batch(two: Two, tmp_path: Path) -> None:
    """The clock goes on by one second a call, so four images in a batch take a quarter each."""
    one, other, _ = two
    assert len(one.image_NHWC) == 1
    assert len(other.image_NHWC) == 12
    assert time_alternately(one, other, ticking(1.0))[0] == (1.0, 1.0)
    manifest = load_bundle(tmp_path / "other").manifest
    four = whole_images(other.runtime, manifest, 4)
    assert len(four.image_NHWC) == 48
    assert time_alternately(one, four, ticking(1.0))[0] == (1.0, 0.25)


@pytest.mark.parametrize(("values", "rank"), [(8, 1), (10, 1), (12, 2), (20, 4), (31, 8)])
def test_the_interval_has_the_ranks_of_the_tables(values: int, rank: int) -> None:
    """Ranks of the two-sided 99 % interval of a median by the binomial distribution."""
    found = median_interval(range(1, values + 1))
    assert (found.low, found.high) == (rank, values + 1 - rank)
    assert found.median == (values + 1) / 2


def test_too_few_values_give_no_interval() -> None:
    with pytest.raises(ValueError, match="7 values give no interval of 99 %: 8 do"):
        median_interval([1.0] * 7)


@given(st.lists(st.floats(0.1, 10), min_size=8, max_size=31), st.randoms())
def test_the_interval_holds_the_median_and_knows_no_order(
    values: list[float], random: object
) -> None:
    found = median_interval(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    shuffled = values.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # random.Random, by hypothesis
    assert median_interval(shuffled) == found


def test_the_interval_misses_the_truth_as_seldom_as_it_says() -> None:
    """Of equals whose every time is now and then trebled by other work, whose median ratio is 1."""
    random = np.random.default_rng(7)
    times = random.lognormal(0.0, 0.2, (2, 4000, PAIRS))
    times *= np.where(random.random(times.shape) < 0.2, 3.0, 1.0)
    intervals = [median_interval(row) for row in times[0] / times[1]]
    missed = sum(not one.low <= 1.0 <= one.high for one in intervals) / len(intervals)
    assert missed < 0.01
    assert sum(one.low > 1.25 for one in intervals) == 0
