"""A worker that falls out of its group without an error notices it by its refused commits."""

import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from kafka import KafkaAdminClient

from tests.support.events import Outgoing, send
from tests.support.services import MakeTopics
from tests.support.worker_process import eventually
from tests.unit.worker.services import make_services
from worker import consumer
from worker.consumer import Consumer
from worker.errors import Fatal
from worker.offsets import OffsetTracker
from worker.settings import FlowSettings, KafkaSettings, Settings
from worker.types import Payload, Sink


class LoopThread(threading.Thread):
    """A polling loop whose records are published as soon as they are received."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        super().__init__(daemon=True)
        topic, verdict_topic, dead_letter_topic = topics
        kafka = KafkaSettings(
            bootstrap_servers=bootstrap,
            group_id=topic,
            input_topic=topic,
            verdict_topic=verdict_topic,
            dead_letter_topic=dead_letter_topic,
            metadata_max_age_ms=300,
            session_timeout_ms=2_000,
            heartbeat_interval_ms=300,
            max_poll_interval_ms=3_000,
        )
        settings = Settings(kafka=kafka, flow=FlowSettings(commit_interval_ms=100))
        services = make_services(settings=settings, clock=time.monotonic, wall=time.time)
        self.readiness = services.health.readiness
        self.stop = threading.Event()
        self.error: Exception | None = None
        self.failure: Fatal | None = None
        self._metrics = services.metrics
        self._offsets = OffsetTracker()
        self._consumer = Consumer(services, self._offsets, self, self.stop)

    @property
    def submit(self) -> Sink:
        """The pipeline of this loop: a record is published as soon as it is received."""
        return self._publish

    @property
    def joined(self) -> bool:
        """Whether it has got partitions."""
        return "group" not in self.readiness.problems()

    @property
    def refused(self) -> float:
        """How many commits were refused."""
        value = self._metrics.registry.get_sample_value(
            "synthgate_offset_commits_total", {"result": "lost"}
        )
        return value or 0.0

    def run(self) -> None:
        """Poll until told to stop, and keep the error that ended it."""
        try:
            self._consumer.run()
        except Fatal as error:
            self.error = error

    def _publish(self, payload: Payload) -> None:
        self._offsets.acknowledge(payload.event.token)


@pytest.fixture
def stranded(
    bootstrap: str, topics: MakeTopics, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoopThread]:
    """A loop whose client has lost a join in between two polls, as kafka-python does if nobody sees to it."""
    monkeypatch.setattr(consumer, "finish_joining", lambda _: None)
    monkeypatch.setattr(consumer, "POLL_TIMEOUT_MS", 2)
    names = topics("stranded", "verdicts", "dead", partitions=1)
    loop = LoopThread(bootstrap, names)
    loop.start()
    feeding = threading.Event()
    feeder = threading.Thread(target=feed_and_grow, args=(bootstrap, names[0], loop, feeding))
    feeder.start()
    try:
        yield loop
    finally:
        feeding.set()
        feeder.join()
        loop.stop.set()
        loop.join(30)


def feed_and_grow(bootstrap: str, topic: str, loop: LoopThread, end: threading.Event) -> None:
    """A record every tenth of a second, and every second a partition more until the loop has lost a join."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    partitions, grown_at_s, refused = 1, time.monotonic(), 0.0
    while not end.wait(0.1):
        send(bootstrap, topic, [Outgoing(None, b"x", partition=0)])
        if loop.joined and time.monotonic() > grown_at_s + 1:
            if loop.refused == refused:
                partitions += 1
                admin.create_partitions({topic: partitions})
            grown_at_s, refused = time.monotonic(), loop.refused
    admin.close()


@pytest.mark.kafka_only(reason="the embedded broker cannot add partitions to a topic")
def test_a_worker_that_is_no_member_any_more_says_so_and_ends(stranded: LoopThread) -> None:
    """Not ready after a session; once no rebalance can explain it, an error that says what helps."""
    eventually(lambda: "commits" in stranded.readiness.problems(), "it is not ready", 40)
    assert "this worker fell out of it" in stranded.readiness.problems()["commits"]
    assert stranded.error is None
    eventually(lambda: stranded.error is not None, "it ends")
    assert "start it again, and it joins anew" in str(stranded.error)
