"""How many files of the worker one record crosses: what a newcomer must open to follow it from consume to commit."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

import worker
from engines.bundle.verify import load_bundle
from tests.support.events import binary, picture, structured
from tests.support.image_server import ImageServer
from tests.support.lane import Lane
from tests.support.results import letter_of
from tests.support.worker_process import eventually
from tests.unit.worker.services import make_services
from worker.cache import VerdictCache, connect
from worker.consumer import Consumer
from worker.engine import EngineSlots, make_engine
from worker.offsets import OffsetTracker
from worker.pipeline import Pipeline
from worker.settings import Settings

FILES_AT_MOST = 12
FOLDER = str(Path(worker.__file__).parent) + "/"


class Journey:
    """The files of worker/ with a function that runs between the first record received and its commit."""

    def __init__(self) -> None:
        self.functions: dict[str, set[str]] = {}
        self.ended = threading.Event()

    @property
    def files(self) -> list[str]:
        """Their names."""
        return sorted(self.functions)

    def hook(self, frame: FrameType, happening: str, _argument: object) -> None:
        """For ``threading.setprofile``: module bodies and class bodies do not count."""
        code = frame.f_code
        name = code.co_filename.removeprefix(FOLDER)
        if name == code.co_filename or self.ended.is_set() or code.co_name == "<module>":
            return
        if happening == "call":
            if code.co_name == "_record" and name == "consumer.py":
                self.functions.clear()
            self.functions.setdefault(name, set()).add(code.co_name)
        elif happening == "return" and code.co_name == "committed" and name == "offsets.py":
            self.ended.set()


@pytest.fixture
def journey() -> Iterator[Journey]:
    """Follows every thread that starts from now on."""
    followed = Journey()
    threading.setprofile(followed.hook)
    yield followed
    threading.setprofile(None)


def nested(flat: dict[str, object]) -> dict[str, dict[str, object]]:
    """Settings by group, from ``group.name``."""
    groups: dict[str, dict[str, object]] = {}
    for name, value in flat.items():
        group, _, setting = name.partition(".")
        groups.setdefault(group, {})[setting] = value
    return groups


def followed_worker(lane: Lane, journey: Journey) -> None:
    """Run a worker in this process until it has committed its first record."""
    fetch = {"fetch__schemes": ("http",), "fetch__allow_private_networks": True}
    settings = Settings.model_validate(nested(lane.settings(**fetch)))
    engine = make_engine(load_bundle(lane.bundle), "deciding", "enforce", None)
    services = make_services(
        EngineSlots(engine),
        settings=settings,
        cache=VerdictCache(connect(settings.redis), settings.redis),
        clock=time.monotonic,
        wall=time.time,
    )
    stop, offsets = threading.Event(), OffsetTracker()
    pipeline = Pipeline(services, offsets.acknowledge)
    consumer = threading.Thread(target=Consumer(services, offsets, pipeline, stop).run)
    pipeline.start()
    consumer.start()
    try:
        eventually(journey.ended.is_set, "the record was committed")
    finally:
        stop.set()
        consumer.join(30)
        pipeline.close()
        services.slots.close()
    assert pipeline.failure is None


@pytest.mark.parametrize("source", ["inline", "http"])
def test_a_record_crosses_few_files(
    lane: Lane, images: ImageServer, journey: Journey, source: str
) -> None:
    """From consume to commit, whether the event carries its image or names it."""
    images.routes["/image"] = picture(1)
    inline = binary("content-1", picture(1))
    lane.send(inline if source == "inline" else structured("content-1", uri=f"{images.url}/image"))
    followed_worker(lane, journey)
    with lane.verdicts() as reader:
        reader.wait_for_keys(["content-1"])
    assert len(journey.files) <= FILES_AT_MOST, journey.files
    stages = {"consumer.py", "intake.py", "infer.py", "publish.py", "offsets.py"}
    assert stages <= set(journey.files), "followed from end to end"


def test_a_poison_record_crosses_few_files(lane: Lane, journey: Journey) -> None:
    """To the dead letters, too."""
    (place,) = lane.send(structured("content-1", uri="ftp://images.example/1"))
    followed_worker(lane, journey)
    with lane.dead_letters() as reader:
        assert letter_of(reader, place).header("synthgate.error.code") == "scheme_not_allowed"
    assert len(journey.files) <= FILES_AT_MOST, journey.files
