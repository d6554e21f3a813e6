"""Batches are of one engine, every lease comes back, and a canary that breaks harms no event."""

import pytest

from tests.unit.worker.engines import FaultyRuntime, make_tiny_engine, with_runtime
from tests.unit.worker.samples import envelope, image_of, prepared, record
from tests.unit.worker.services import Collected, make_services
from worker.engine import Engine, EngineSlots, is_canary_content
from worker.errors import Fatal
from worker.infer import InferStage
from worker.settings import BatchSettings, Settings
from worker.types import Decided, Decoded, Rejected

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
    """One engine's score is never taken for another's; its own is, by a later batch."""
    infer, (stable, canary) = opened(engines)
    for _ in range(5):
        infer.put(infer.stable, 7)
        infer.put(infer.canary, 7)
    infer.run()
    assert stable.calls == canary.calls == [[7]]
    assert len(infer.collected.next) == 10


@pytest.mark.parametrize("fails_on", [(), (3,), (3, GREY)])
def test_every_lease_comes_back(engines: tuple[Engine, Engine], fails_on: tuple[int, ...]) -> None:
    """Whether images were scored, were poison, or broke the engine: else an old one would never be freed."""
    infer, runtimes = opened(engines, *fails_on)
    infer.put(infer.stable, 1, 2)
    infer.put(infer.canary, 3, 4)
    infer.run()
    for engine, runtime in zip((infer.stable, infer.canary), runtimes, strict=True):
        assert infer.slots.close_when_idle(engine, lambda: True)
        assert runtime.closed


def test_an_image_that_a_canary_fails_on_is_poison(engines: tuple[Engine, Engine]) -> None:
    """As with any engine; the canary, which scores all else, keeps its seat."""
    infer, _ = opened(engines, 3)
    infer.put(infer.canary, 3, 4)
    infer.run()
    (rejected,) = [each for each in infer.collected.next if isinstance(each, Rejected)]
    assert (rejected.stage, rejected.code) == ("infer", "engine_failure")
    assert infer.decided() == {4: "canary"}
    assert infer.slots.installed("canary") is infer.canary


def test_a_canary_that_breaks_loses_its_seat_and_no_event(engines: tuple[Engine, Engine]) -> None:
    """What it had is taken again, by the engine in place; a metric says so, once."""
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
