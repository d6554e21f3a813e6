"""The stages in a row: a stage is added by one line, and an error of one ends the process."""

import dataclasses
import queue
import time
from collections.abc import Iterator

import pytest

from tests.unit.worker.engines import make_tiny_engine
from tests.unit.worker.samples import (
    base64_text,
    cloudevent,
    decided,
    envelope,
    jpeg_bytes,
    record,
    rejected,
    structured,
)
from tests.unit.worker.services import make_services
from worker.engine import Engine, EngineSlots
from worker.errors import DeviceGone, Fatal
from worker.infer import InferStage
from worker.intake import IntakeStage
from worker.pipeline import STAGES, Pipeline, StageFactory
from worker.services import Services
from worker.types import AckToken, Decided, Decoded, Links, Payload, Received, Rejected

WAIT_S = 20


class PassThrough:
    """The smallest stage: it hands on every payload, in its own thread."""

    seen: queue.SimpleQueue[Payload]

    def __init__(self, _services: Services, links: Links) -> None:
        self._next = links.next
        self._waiting: queue.SimpleQueue[Payload | None] = queue.SimpleQueue()

    def submit(self, payload: Payload) -> None:
        """Take a payload; returns at once."""
        self._waiting.put(payload)

    def run(self) -> None:
        """Hand on until closed."""
        while (payload := self._waiting.get()) is not None:
            self.seen.put(payload)
            self._next(payload)

    def close(self) -> None:
        """End the run."""
        self._waiting.put(None)


class Acknowledging:
    """In place of publish: it acknowledges every outcome."""

    outcomes: queue.SimpleQueue[Payload]

    def __init__(self, _services: Services, links: Links) -> None:
        self._acknowledge = links.acknowledge
        self._end: queue.SimpleQueue[None] = queue.SimpleQueue()

    def submit(self, payload: Payload) -> None:
        """Take an outcome."""
        self._acknowledge(payload.event.token)
        self.outcomes.put(payload)

    def run(self) -> None:
        """Wait for the end."""
        self._end.get()

    def close(self) -> None:
        """End the run."""
        self._end.put(None)


@pytest.fixture(autouse=True)
def fresh_queues() -> None:
    """Each test has queues of its own."""
    PassThrough.seen, Acknowledging.outcomes = queue.SimpleQueue(), queue.SimpleQueue()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A real one."""
    made = make_tiny_engine(tmp_path_factory.mktemp("engine"))
    yield made
    made.bundle.runtime.close()


def test_the_stages_are_intake_infer_and_publish() -> None:
    """From top to bottom."""
    assert list(STAGES) == ["intake", "infer", "publish"]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_stage_that_passes_everything_through_is_one_line(engine: Engine, place: int) -> None:
    """Wherever it stands, every event crosses it once and comes to the same end."""
    rows: list[tuple[str, StageFactory]] = [
        ("intake", IntakeStage),
        ("infer", InferStage),
        ("publish", Acknowledging),
    ]
    stages = dict([*rows[:place], ("audit", PassThrough), *rows[place:]])
    tokens: queue.SimpleQueue[AckToken] = queue.SimpleQueue()

    def acknowledge(token: AckToken) -> bool:
        tokens.put(token)
        return True

    services = make_services(EngineSlots(engine), clock=time.monotonic)
    pipeline = Pipeline(services, acknowledge, stages)
    pipeline.start()
    try:
        image = cloudevent({"content_id": "c", "data_base64": base64_text(jpeg_bytes())})
        good = envelope(structured(image, offset=1))
        bad = envelope(record(b"not json", offset=2))
        for event in (good, bad):
            pipeline.submit(Received(event))
        outcomes = [Acknowledging.outcomes.get(timeout=WAIT_S) for _ in range(2)]
        seen = [PassThrough.seen.get(timeout=WAIT_S) for _ in range(2)]
    finally:
        pipeline.close()
    by_offset = {payload.event.token.offset: payload for payload in outcomes}
    assert isinstance(by_offset[1], Decided)
    assert isinstance(by_offset[2], Rejected)
    assert {tokens.get_nowait() for _ in range(2)} == {good.token, bad.token}
    kinds = {payload.event.token.offset: type(payload) for payload in seen}
    between = {0: (Received, Received), 1: (Decoded, Rejected), 2: (Decided, Rejected)}
    assert (kinds[1], kinds[2]) == between[place]
    assert PassThrough.seen.empty()
    assert pipeline.failure is None


class Failing(PassThrough):
    """A stage whose run ends with an error."""

    error: Exception

    def run(self) -> None:
        """Never works."""
        raise self.error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DeviceGone("the device is lost"), "the device is lost"),
        (KeyError("a bug"), "unexpected KeyError in a stage: 'a bug'"),
    ],
)
def test_an_error_of_a_stage_ends_the_process_and_says_why(error: Exception, message: str) -> None:
    """The polling thread raises it, and until then the worker is not ready."""
    Failing.error = error
    services = make_services()
    services.health.readiness.set("group", None)
    pipeline = Pipeline(services, lambda _token: True, {"failing": Failing})
    assert (pipeline.failure, services.health.readiness.problems()) == (None, {})
    pipeline.start()
    pipeline._threads[0].join(timeout=WAIT_S)
    assert isinstance(pipeline.failure, Fatal)
    assert str(pipeline.failure) == message
    assert isinstance(pipeline.failure, DeviceGone) == isinstance(error, DeviceGone)
    assert services.health.readiness.problems() == {"engine": message}
    pipeline.close()


def test_a_payload_that_no_stage_keeps_is_a_mistake_of_the_wiring(engine: Engine) -> None:
    """Publish takes outcomes alone, and the last stage hands nothing on."""
    services = make_services()
    publish = STAGES["publish"](services, Links(list[Payload]().append, print, lambda _t: True))
    with pytest.raises(TypeError, match="publish takes outcomes, and got Received"):
        publish.submit(Received(envelope()))
    pipeline = Pipeline(services, lambda _token: True, {"infer": InferStage})
    with pytest.raises(TypeError, match="no stage takes Rejected"):
        pipeline.submit(rejected())


def test_everything_that_travels_is_frozen(engine: Engine) -> None:
    """Stages share payloads across threads."""
    outcome = decided(engine)
    for value, name in ((outcome, "score"), (outcome.event, "timings"), (outcome.image, "sha256")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)
