"""A shadow scores beside the deciding engine, and whatever befalls it stays with it."""

import json
from collections.abc import Callable, Iterator

import pytest
import structlog
from structlog.testing import LogCapture

from engines.preprocess import Limits, decode_image
from tests.unit.worker.engines import FaultyRuntime, make_tiny_engine, with_runtime
from tests.unit.worker.samples import envelope, event, image_of, jpeg_bytes, record
from tests.unit.worker.services import make_services
from worker.engine import Engine, EngineSlots
from worker.messages import Message
from worker.settings import BatchSettings, FlowSettings, KafkaSettings, Settings
from worker.shadow import DRAIN_TIMEOUT_S, Shadow

CROP_PX = 16  # other crops than those of the engine in place


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A trace of an error with all its images takes longer to draw than a stop waits."""
    structlog.configure(processors=[LogCapture()], cache_logger_on_first_use=False)
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Engine]:
    """The engine in place, and a shadow that wants smaller crops."""
    directory = tmp_path_factory.mktemp("engines")
    return make_tiny_engine(directory / "stable"), make_tiny_engine(
        directory / "shadow", "shadow", version="0.2.0", crop_px=CROP_PX
    )


class Beside:
    """A shadow whose messages are kept."""

    def __init__(
        self,
        engines: tuple[Engine, Engine],
        runtime: FaultyRuntime | None = None,
        send: Callable[[Message], None] | None = None,
    ) -> None:
        stable, shadow = engines
        self.engine = with_runtime(shadow, runtime) if runtime else shadow
        self.slots = EngineSlots(stable)
        self.slots.install(self.engine)
        self.sent: list[Message] = []
        self.send = send or self.sent.append
        settings = Settings(
            kafka=KafkaSettings(shadow_topic="shadows"),
            flow=FlowSettings(max_in_flight=4),
            batch=BatchSettings(max_images=2, max_age_ms=5),
        )
        self.now_s = 100.5
        services = make_services(self.slots, settings=settings, clock=lambda: self.now_s)
        self.metrics = services.metrics
        self.shadow = Shadow(services, self)

    def close(self) -> None:
        """Nothing to release: it is the sender, too."""

    def show(self, count: int = 1, data: bytes | None = None) -> None:
        """Show it images whose record and event carry the bytes."""
        data = data or jpeg_bytes()
        for number in range(count):
            upload = event(event_id=f"event-{number}", payload=data, uri=None)
            image = image_of(upload, f"{number:064}")
            self.shadow.submit(envelope(record(data)), image, data, None)

    def counted(self, outcome: str) -> float:
        """Events that came to that."""
        name = "synthgate_shadow_events_total"
        return self.metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0

    def is_idle(self) -> bool:
        """Whether it has released every engine."""
        return self.slots.close_when_idle(self.engine, lambda: True)


def test_its_verdict_says_shadow_and_goes_to_its_own_topic(engines: tuple[Engine, Engine]) -> None:
    """Scored on its own crops of the same pixels; nothing of it is for Redis to keep as the verdict."""
    beside = Beside(engines)
    pixels = decode_image(jpeg_bytes(), Limits())
    beside.shadow.start()
    beside.shadow.submit(envelope(), image_of(), b"not decoded, because there are pixels", pixels)
    beside.shadow.close()
    (message,) = beside.sent
    document = json.loads(message.value or b"")
    assert message.topic == "shadows"
    assert message.published.verdict is None
    assert document["data"]["mode"] == "shadow"
    assert document["data"]["model"]["version"] == "0.2.0"
    assert beside.slots._in_use == {}


def test_what_waits_for_it_does_not_hold_the_image(engines: tuple[Engine, Engine]) -> None:
    """Its crops alone: the bytes are let go with the event that was decided."""
    beside = Beside(engines)
    beside.show()
    waiting = beside.shadow._infer._decoded.get_nowait()
    assert waiting is not None
    assert waiting.event.record.value is None
    assert waiting.image.upload.payload is None
    assert waiting.crops.image_NHWC.shape == (1, CROP_PX, CROP_PX, 3)


def test_a_shadow_that_is_too_slow_is_passed_over(engines: tuple[Engine, Engine]) -> None:
    """No more waits for it than may be in flight; the rest is counted, and nobody waits."""
    beside = Beside(engines)
    beside.show(7)  # its thread has not started
    assert beside.counted("dropped") == 3
    beside.shadow.start()
    beside.shadow.close()
    assert len(beside.sent) == 4
    assert beside.slots._in_use == {}


def test_an_image_that_it_cannot_read_is_its_own_affair(engines: tuple[Engine, Engine]) -> None:
    """Counted, logged, and not raised in the primary path."""
    beside = Beside(engines, FaultyRuntime())
    beside.show(data=b"no image")
    assert beside.counted("failed") == 1
    assert beside.is_idle()


@pytest.mark.parametrize("error", [KeyError("a bug"), OSError("no room")])
def test_what_its_topic_refuses_is_counted(
    engines: tuple[Engine, Engine], error: Exception
) -> None:
    """Whatever sending raises: the thread goes on, and every engine is released."""

    def refuse(_message: Message) -> None:
        raise error

    beside = Beside(engines, FaultyRuntime(), send=refuse)
    beside.show(4)
    beside.shadow.start()
    beside.shadow.close()
    assert beside.counted("failed") == 4
    assert beside.is_idle()


def test_a_shadow_that_breaks_is_evicted(engines: tuple[Engine, Engine]) -> None:
    """It gets no further image, and the metric counts it once."""
    beside = Beside(engines, FaultyRuntime(*range(256)))
    beside.show(4)
    beside.shadow.start()
    beside.shadow.close()
    assert beside.counted("failed") == 4
    assert beside.slots.acquire_shadow() is None
    labels = {"role": "shadow", "outcome": "broken"}
    name = "synthgate_engine_swaps_total"
    assert beside.metrics.registry.get_sample_value(name, labels) == 1
    beside.show()
    assert beside.counted("failed") == 4


def test_what_still_waits_when_a_stop_takes_too_long_is_dropped(
    engines: tuple[Engine, Engine],
) -> None:
    """No decision depends on it: it is counted, and every engine released."""
    beside = Beside(engines, FaultyRuntime())
    beside.show(4)
    beside.shadow._infer.close(DRAIN_TIMEOUT_S)
    beside.shadow._ends_at_s = beside.now_s + DRAIN_TIMEOUT_S
    beside.now_s += DRAIN_TIMEOUT_S
    beside.shadow.start()
    beside.shadow.close()
    assert (beside.counted("dropped"), beside.sent) == (4, [])
    assert beside.is_idle()
