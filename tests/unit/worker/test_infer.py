"""Batches are scored by the real engine; a bad image is told from a broken engine."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.bundle.verify import Bundle, load_bundle
from engines.preprocess import Prepared
from engines.runtime import RuntimeFailure
from engines.runtime.protocol import DeviceLost
from tests.support.bundles import make_tiny_bundle, reference_logit_N
from tests.unit.worker.engines import BATCH_MAX, FaultyRuntime
from tests.unit.worker.samples import prepared
from worker.errors import DeviceGone, Fatal, Poison
from worker.infer import Item, infer_batch
from worker.types import Score

CROP_PX = 8


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """The tiny bundle, loaded; at most four crops a call."""
    directory = make_tiny_bundle(
        tmp_path_factory.mktemp("bundle"), crop_px=CROP_PX, max_crops=4, batch_max=BATCH_MAX
    )
    loaded = load_bundle(directory)
    yield loaded
    loaded.runtime.close()


def item(crops: int, seed: int) -> Item:
    """An image of so many crops of noise; the seed is its identity."""
    random = np.random.default_rng(seed)
    image_NHWC = random.integers(0, 256, (crops, CROP_PX, CROP_PX, 3), dtype=np.uint8)
    digest = hashlib.sha256(image_NHWC.tobytes()).hexdigest()
    return Item(digest, Prepared(image_NHWC, "image/png", 640 + seed, 480))


@given(crops=st.lists(st.integers(1, 4), min_size=1, max_size=9), data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_image_gets_the_mean_of_its_own_crops(
    bundle: Bundle, crops: list[int], data: st.DataObject
) -> None:
    """In the batch's order, however its crops fall into calls, and wherever images repeat."""
    distinct = [item(count, seed) for seed, count in enumerate(crops)]
    batch = data.draw(st.lists(st.sampled_from(distinct), min_size=1, max_size=12))
    results = infer_batch(bundle.runtime, batch)
    assert len(results) == len(batch)
    for each, result in zip(batch, results, strict=True):
        assert isinstance(result, Score)
        expected = reference_logit_N(each.image.image_NHWC).mean()
        assert result.logit == pytest.approx(expected, abs=1e-4)
        assert (result.mime, result.width_px) == ("image/png", each.image.width_px)


def grey(level: int, crops: int = 1) -> Item:
    """An image of one grey level; the level is its identity."""
    return Item(str(level), prepared(crops, CROP_PX, level))


def test_repeated_bytes_are_inferred_once() -> None:
    """Each repeat gets the same score."""
    runtime = FaultyRuntime()
    results = infer_batch(runtime, [grey(1), grey(2), grey(1), grey(1)])
    assert runtime.calls == [[1, 2]]
    assert [each.logit for each in results if isinstance(each, Score)] == [1, 2, 1, 1]


def test_crops_are_cut_into_calls_of_the_engines_size() -> None:
    """An image's crops may fall into two calls."""
    runtime = FaultyRuntime()
    results = infer_batch(runtime, [grey(1, 3), grey(2, 3), grey(3, 3)])
    assert runtime.calls == [[1, 1, 1, 2], [2, 2, 3, 3], [3]]
    assert [each.logit for each in results if isinstance(each, Score)] == [1, 2, 3]


@pytest.mark.parametrize("error", [RuntimeFailure, MemoryError])
def test_an_image_that_breaks_the_engine_harms_no_other(error: type[Exception]) -> None:
    """It alone is poison; the others of its batch are scored, in their places."""
    runtime = FaultyRuntime(2, error=error)
    results = infer_batch(runtime, [grey(1), grey(2), grey(3), grey(2)])
    assert [type(each) for each in results] == [Score, Poison, Score, Poison]
    poison = results[1]
    assert isinstance(poison, Poison)
    assert (poison.stage, poison.code, poison.attempts) == ("infer", "engine_failure", 2)
    assert "the engine fails on this image" in poison.message


def test_a_batch_that_is_too_much_at_once_is_tried_image_by_image() -> None:
    """Out of memory on the batch is no fault of any image."""
    results = infer_batch(FaultyRuntime(call_max=1), [grey(1), grey(2), grey(3)])
    assert [each.logit for each in results if isinstance(each, Score)] == [1, 2, 3]


def test_a_batch_of_bad_images_alone_does_not_end_the_worker() -> None:
    """The engine still scores a plain grey image: it is the images that are bad."""
    results = infer_batch(FaultyRuntime(1, 2), [grey(1), grey(2)])
    assert [type(each) for each in results] == [Poison, Poison]


def test_an_engine_that_scores_nothing_ends_the_worker() -> None:
    """Not even plain grey (128): nothing may be dead-lettered for that, another worker takes over."""
    with pytest.raises(Fatal, match="the engine cannot score anything any more: broken by"):
        infer_batch(FaultyRuntime(1, 2, 128), [grey(1), grey(2)])


def test_an_engine_that_breaks_in_mid_batch_ends_the_worker() -> None:
    """Images after the break are not written off: the first was scored, then nothing is any more."""
    runtime = FaultyRuntime(2, 128)
    with pytest.raises(Fatal):
        infer_batch(runtime, [grey(1), grey(2)])


def test_an_error_of_ours_is_no_poison() -> None:
    """A wrong shape is a bug, which must not be written off as a bad image."""
    with pytest.raises(ValueError, match="broken by"):
        infer_batch(FaultyRuntime(1, error=ValueError), [grey(1), grey(2)])


def test_a_lost_device_is_no_images_fault() -> None:
    """No image is tried by itself: the process is to end, and says why."""
    runtime = FaultyRuntime(1, error=DeviceLost)
    with pytest.raises(DeviceGone, match=r"broken by \[1, 2\]"):
        infer_batch(runtime, [grey(1), grey(2)])
    assert runtime.calls == [[1, 2]]
