"""Batches are of one engine, every lease comes back, and a canary that breaks harms no event."""

import queue

import pytest
import redis

from tests.unit.worker.engines import FaultyRuntime, make_tiny_engine, with_runtime
from tests.unit.worker.samples import event, prepared, record, taken
from worker.cache import VerdictCache
from worker.engine import Engine, EngineSlots, is_canarys
from worker.errors import Fatal
from worker.infer import ScoreLoop
from worker.metrics import Metrics
from worker.settings import BatchSettings, RedisSettings, Settings
from worker.types import Decided, Decoded, Fetched, Outcome, Rejected, Taken

GREY = 128  # what a doubtful engine is tried with


class Loop:
    """A score loop over a queue that is filled before it runs."""

    def __init__(self, stable: Engine, canary: Engine) -> None:
        # Scores of this process alone: no server is asked for them.
        cache = VerdictCache(redis.Redis(), RedisSettings())
        self.slots = EngineSlots(stable, canary_share=0.5)
        self.slots.install(canary)
        self.stable, self.canary = stable, canary
        self.queue: queue.SimpleQueue[Decoded | None] = queue.SimpleQueue()
        self.outcomes: list[Outcome] = []
        self.again: list[Taken] = []
        self.metrics = Metrics()
        settings = Settings(batch=BatchSettings(max_images=4, max_age_ms=60_000))
        self.loop = ScoreLoop(
            settings, self.slots, cache, self.queue, self.outcomes.append, self.again.append,
            self.metrics, lambda: 101.0,
        )  # fmt: skip

    def put(self, engine: Engine, *levels: int) -> None:
        """Images of these grey levels, leased for an engine."""
        names = (f"content-{number}" for number in range(1000))
        wanted = engine.role == "canary"
        name = next(one for one in names if is_canarys(one, 0.5) == wanted)
        for level in levels:
            leased = self.slots.acquire(name)
            fetched = Fetched(taken(record(offset=level)), event(), f"{level:064}", 10, 1.0)
            self.queue.put(Decoded(fetched, leased, prepared(level=level), 1.0, 100.0))

    def run(self) -> None:
        """Score what was put."""
        self.queue.put(None)
        self.loop.run()

    def decided(self) -> dict[int, str]:
        """From the image's level to the mode of the engine that decided about it."""
        return {
            each.scored.fetched.taken.token.offset: each.scored.engine.mode
            for each in self.outcomes
            if isinstance(each, Decided)
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
) -> tuple[Loop, tuple[FaultyRuntime, ...]]:
    """A loop whose canary fails on these levels, and both runtimes."""
    runtimes = (FaultyRuntime(), FaultyRuntime(*fails_on))
    stable, canary = (with_runtime(*pair) for pair in zip(engines, runtimes, strict=True))
    return Loop(stable, canary), runtimes


def test_two_engines_never_share_a_batch(engines: tuple[Engine, Engine]) -> None:
    """However their images alternate, each is scored by the engine that it was cropped for, in full batches."""
    loop, (stable, canary) = opened(engines)
    for level in range(0, 10, 2):
        loop.put(loop.stable, level)
        loop.put(loop.canary, level + 1)
    loop.run()
    assert stable.calls == [[0, 2, 4, 6], [8]]
    assert canary.calls == [[1, 3, 5, 7], [9]]
    assert loop.decided() == {level: ("enforce", "canary")[level % 2] for level in range(10)}


def test_the_same_bytes_are_scored_once_by_each_engine(engines: tuple[Engine, Engine]) -> None:
    """One engine's score is never taken for another's; its own is, by a later batch."""
    loop, (stable, canary) = opened(engines)
    for _ in range(5):
        loop.put(loop.stable, 7)
        loop.put(loop.canary, 7)
    loop.run()
    assert stable.calls == canary.calls == [[7]]
    assert len(loop.outcomes) == 10


@pytest.mark.parametrize("fails_on", [(), (3,), (3, GREY)])
def test_every_lease_comes_back(engines: tuple[Engine, Engine], fails_on: tuple[int, ...]) -> None:
    """Whether images were scored, were poison, or broke the engine: else an old one would never be freed."""
    loop, runtimes = opened(engines, *fails_on)
    loop.put(loop.stable, 1, 2)
    loop.put(loop.canary, 3, 4)
    loop.run()
    for engine, runtime in zip((loop.stable, loop.canary), runtimes, strict=True):
        assert loop.slots.close_when_idle(engine, lambda: True)
        assert runtime.closed


def test_an_image_that_a_canary_fails_on_is_poison(engines: tuple[Engine, Engine]) -> None:
    """As with any engine; the canary, which scores all else, keeps its seat."""
    loop, _ = opened(engines, 3)
    loop.put(loop.canary, 3, 4)
    loop.run()
    (rejected,) = [each for each in loop.outcomes if isinstance(each, Rejected)]
    assert (rejected.stage, rejected.code) == ("infer", "engine_failure")
    assert loop.decided() == {4: "canary"}
    assert loop.slots.installed("canary") is loop.canary


def test_a_canary_that_breaks_loses_its_seat_and_no_event(engines: tuple[Engine, Engine]) -> None:
    """What it had is taken again, by the engine in place; a metric says so, once."""
    loop, _ = opened(engines, *range(3, 9), GREY)
    loop.put(loop.canary, *range(3, 9))
    loop.put(loop.stable, 1)
    loop.run()
    assert sorted(each.token.offset for each in loop.again) == list(range(3, 9))
    assert loop.decided() == {1: "enforce"}
    assert loop.slots.installed("canary") is None
    labels = {"role": "canary", "outcome": "broken"}
    name = "synthgate_engine_swaps_total"
    assert loop.metrics.registry.get_sample_value(name, labels) == 1


def test_an_engine_in_place_that_breaks_ends_the_process(engines: tuple[Engine, Engine]) -> None:
    """Nothing else could decide."""
    stable, canary = engines
    loop = Loop(with_runtime(stable, FaultyRuntime(1, GREY)), with_runtime(canary, FaultyRuntime()))
    loop.put(loop.stable, 1)
    with pytest.raises(Fatal, match="cannot score anything any more"):
        loop.run()
    assert (loop.outcomes, loop.again) == ([], [])
