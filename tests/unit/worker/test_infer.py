"""Batches close by size or age and are of one engine; a bad image is told from a broken engine; no event is lost."""

import hashlib
import queue
import threading
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
from tests.unit.worker.engines import BATCH_MAX, FaultyRuntime, make_tiny_engine, with_runtime
from tests.unit.worker.samples import envelope, image_of, prepared, record
from tests.unit.worker.services import Collected, make_services
from worker.engine import Engine, EngineSlots, is_canary_content
from worker.errors import DeviceGone, Fatal, Poison
from worker.infer import IDLE_WAIT_S, Batcher, InferStage, Item, batches, infer_batch
from worker.settings import BatchSettings, Settings
from worker.types import Decided, Decoded, Rejected, Score


def test_a_batch_closes_when_it_is_full() -> None:
    """The item that fills it closes it, at once."""
    batcher: Batcher[int] = Batcher(3, 10.0)
    assert batcher.add(1, 0.0) is None
    assert batcher.add(2, 0.0) is None
    assert batcher.add(3, 0.0) == [1, 2, 3]
    assert batcher.take() == []


def test_a_batch_closes_when_its_first_item_is_old() -> None:
    """The age is that of the first item; a later one does not prolong it."""
    batcher: Batcher[str] = Batcher(3, 0.5)
    batcher.add("a", 100.0)
    batcher.add("b", 100.4)
    assert batcher.due(100.4) is None
    assert batcher.due(100.5) == ["a", "b"]
    assert batcher.due(200.0) is None, "an empty batch is never due"


def test_the_wait_is_the_time_left() -> None:
    """It ends when the open batch is due and is never negative."""
    batcher: Batcher[int] = Batcher(3, 0.5)
    assert batcher.wait_s(0.0) == IDLE_WAIT_S
    batcher.add(1, 10.0)
    assert batcher.wait_s(10.25) == 0.25
    assert batcher.wait_s(11.0) == 0.0


@given(
    ages=st.lists(st.floats(0, 0.3), max_size=40),
    max_items=st.integers(1, 5),
    max_age_s=st.sampled_from([0.001, 0.1, 1.0]),
)
def test_every_item_is_in_one_batch_in_order(
    ages: list[float], max_items: int, max_age_s: float
) -> None:
    """Batches, one after the other, are the items; none is over-full, none stays open too long."""
    batcher: Batcher[int] = Batcher(max_items, max_age_s)
    now_s, out = 0.0, list[list[int]]()
    for item, pause_s in enumerate(ages):
        now_s += pause_s
        out += [each for each in (batcher.due(now_s), batcher.add(item, now_s)) if each]
        assert batcher.wait_s(now_s) <= max(max_age_s, IDLE_WAIT_S)
    out.append(batcher.take())
    assert [item for batch in out for item in batch] == list(range(len(ages)))
    assert all(len(batch) <= max_items for batch in out)


def _filled(*items: int | None) -> "queue.SimpleQueue[int | None]":
    source: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for item in items:
        source.put(item)
    return source


def same(_item: int) -> int:
    """One key for all."""
    return 0


def test_what_must_not_be_mixed_is_batched_apart() -> None:
    """Items of two kinds that alternate fill two batches, each in order; neither closes the other's."""
    items = _filled(1, 2, 3, 4, 5, 6, 7, None)
    found = list(batches(items, lambda: Batcher(3, 60.0), lambda item: item % 2, clock=lambda: 0.0))
    assert found == [[1, 3, 5], [2, 4, 6], [7]]


def test_the_oldest_open_batch_sets_the_pace() -> None:
    """A kind that nothing comes of any more is given out by its age, while the other goes on."""
    times_s = iter([0.0, 0.0, 0.0, 0.4, 0.4, 0.4, 0.6])
    found = batches(
        _filled(1, 2, 4, 6, 8, None),
        lambda: Batcher(10, 0.5),
        lambda item: item % 2,
        lambda: next(times_s, 0.6),
    )
    assert next(found) == [1]


def test_the_rest_comes_before_the_end() -> None:
    """None ends the stream; what is open then is still a batch."""
    found = list(batches(_filled(1, 2, 3, None, 4), lambda: Batcher(2, 60.0), same, lambda: 0.0))
    assert found == [[1, 2], [3]]
    assert list(batches(_filled(None), lambda: Batcher(2, 60.0), same, lambda: 0.0)) == []


def test_a_busy_queue_does_not_keep_a_batch_open() -> None:
    """Age is looked at after every item, not only when the queue is empty."""
    times_s = iter([0.0, 0.0, 0.0, 0.4, 0.4, 0.4, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8])
    found = batches(_filled(1, 2, 3, None), lambda: Batcher(10, 0.5), same, lambda: next(times_s))
    assert next(found) == [1, 2, 3]


def test_a_lone_item_is_given_out_when_it_is_old() -> None:
    """With nothing else arriving, the wait for the queue ends when the batch is due."""
    clock = iter([0.0, 0.0, 0.0, 0.0, 5.0])
    found = batches(_filled(1), lambda: Batcher(10, 0.001), same, lambda: next(clock, 5.0))
    assert next(found) == [1]


@given(st.lists(st.integers(), max_size=30))
@settings(max_examples=30, deadline=None)
def test_no_item_is_lost_between_threads(items: list[int]) -> None:
    """A producer in another thread, a consumer here."""
    source = _filled()

    def produce() -> None:
        for item in [*items, None]:
            source.put(item)

    thread = threading.Thread(target=produce)
    thread.start()
    found = [
        item
        for batch in batches(source, lambda: Batcher(4, 0.001), same, lambda: 0.0)
        for item in batch
    ]
    thread.join()
    assert found == items


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


GREY = 128  # what a doubtful engine is tried with


class Stage:
    """An infer stage whose queue is filled before it runs."""

    def __init__(self, stable: Engine, canary: Engine) -> None:
        self.slots = EngineSlots(stable, canary_share=0.5)
        self.slots.install(canary)
        self.stable, self.canary = stable, canary
        settings = Settings(batch=BatchSettings(max_images=4, max_age_ms=60_000))
        services = make_services(self.slots, settings=settings)
        self.metrics = services.metrics
        self.collected = Collected()
        self.stage = InferStage(services, self.collected.links())

    def put(self, engine: Engine, *levels: int) -> None:
        """Images of these grey levels, for which the engine was acquired."""
        names = (f"content-{number}" for number in range(1000))
        wanted = engine.role == "canary"
        name = next(name for name in names if is_canary_content(name, 0.5) == wanted)
        for level in levels:
            acquired = self.slots.acquire(name)
            self.stage.submit(
                Decoded(
                    envelope(record(offset=level)),
                    image_of(sha256=f"{level:064}"),
                    acquired,
                    prepared(level=level),
                    100.0,
                )
            )

    def run(self) -> None:
        """Score what was put."""
        self.stage.close()
        self.stage.run()

    def decided(self) -> dict[int, str]:
        """From the image's level to the mode of the engine that decided about it."""
        return {
            payload.event.token.offset: payload.engine.mode
            for payload in self.collected.next
            if isinstance(payload, Decided)
        }


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Engine]:
    """An engine in place and a canary; each test opens them on runtimes of its own."""
    directory = tmp_path_factory.mktemp("engines")
    return make_tiny_engine(directory / "stable"), make_tiny_engine(
        directory / "canary", "canary", version="0.2.0"
    )


def opened(
    engines: tuple[Engine, Engine], *fails_on: int
) -> tuple[Stage, tuple[FaultyRuntime, ...]]:
    """A infer whose canary fails on these levels, and both runtimes."""
    runtimes = (FaultyRuntime(), FaultyRuntime(*fails_on))
    stable, canary = (with_runtime(*pair) for pair in zip(engines, runtimes, strict=True))
    return Stage(stable, canary), runtimes


def test_two_engines_never_share_a_batch(engines: tuple[Engine, Engine]) -> None:
    """However their images alternate, each is scored by the engine that it was cropped for, in full batches."""
    infer, (stable, canary) = opened(engines)
    for level in range(0, 10, 2):
        infer.put(infer.stable, level)
        infer.put(infer.canary, level + 1)
    infer.run()
    assert stable.calls == [[0, 2, 4, 6], [8]]
    assert canary.calls == [[1, 3, 5, 7], [9]]
    assert infer.decided() == {level: ("enforce", "canary")[level % 2] for level in range(10)}


def test_the_same_bytes_are_scored_once_by_each_engine(engines: tuple[Engine, Engine]) -> None:
    """A score is never used for another engine; a later batch of the same engine uses it."""
    infer, (stable, canary) = opened(engines)
    for _ in range(5):
        infer.put(infer.stable, 7)
        infer.put(infer.canary, 7)
    infer.run()
    assert stable.calls == canary.calls == [[7]]
    assert len(infer.collected.next) == 10


@pytest.mark.parametrize("fails_on", [(), (3,), (3, GREY)])
def test_every_engine_is_released(
    engines: tuple[Engine, Engine], fails_on: tuple[int, ...]
) -> None:
    """Whether images were scored, were poison, or broke the engine: otherwise an old one would never be closed."""
    infer, runtimes = opened(engines, *fails_on)
    infer.put(infer.stable, 1, 2)
    infer.put(infer.canary, 3, 4)
    infer.run()
    for engine, runtime in zip((infer.stable, infer.canary), runtimes, strict=True):
        assert infer.slots.close_when_idle(engine, lambda: True)
        assert runtime.closed


def test_an_image_that_a_canary_fails_on_is_poison(engines: tuple[Engine, Engine]) -> None:
    """As with any engine; the canary, which scores the others, keeps its slot."""
    infer, _ = opened(engines, 3)
    infer.put(infer.canary, 3, 4)
    infer.run()
    (rejected,) = [each for each in infer.collected.next if isinstance(each, Rejected)]
    assert (rejected.stage, rejected.code) == ("infer", "engine_failure")
    assert infer.decided() == {4: "canary"}
    assert infer.slots.installed("canary") is infer.canary


def test_a_canary_that_breaks_is_evicted_and_loses_no_event(engines: tuple[Engine, Engine]) -> None:
    """Its events are requeued for the deciding engine; a metric counts it once."""
    infer, _ = opened(engines, *range(3, 9), GREY)
    infer.put(infer.canary, *range(3, 9))
    infer.put(infer.stable, 1)
    infer.run()
    assert infer.collected.requeued_offsets() == list(range(3, 9))
    assert infer.decided() == {1: "enforce"}
    assert infer.slots.installed("canary") is None
    labels = {"role": "canary", "outcome": "broken"}
    name = "synthgate_engine_swaps_total"
    assert infer.metrics.registry.get_sample_value(name, labels) == 1


def test_an_engine_in_place_that_breaks_ends_the_process(engines: tuple[Engine, Engine]) -> None:
    """Nothing else could decide."""
    stable, canary = engines
    infer = Stage(
        with_runtime(stable, FaultyRuntime(1, GREY)), with_runtime(canary, FaultyRuntime())
    )
    infer.put(infer.stable, 1)
    with pytest.raises(Fatal, match="cannot score anything any more"):
        infer.run()
    assert (infer.collected.next, infer.collected.requeued) == ([], [])
