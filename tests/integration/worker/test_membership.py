"""A worker that falls out of its group without being told finds out by its commits."""

import threading
import time
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient

from tests.support.events import Outgoing, send
from tests.support.services import MakeTopics
from tests.support.worker_process import eventually
from worker import consumer
from worker.consumer import Consumer
from worker.errors import Fatal
from worker.event import Record
from worker.health import Liveness, Readiness
from worker.metrics import Metrics
from worker.offsets import OffsetTracker
from worker.settings import FlowSettings, KafkaSettings
from worker.types import AckToken


class LoopThread(threading.Thread):
    """A polling loop whose records are done as soon as they are taken."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        kafka = KafkaSettings(
            bootstrap_servers=bootstrap,
            group_id=topic,
            input_topic=topic,
            metadata_max_age_ms=300,
            session_timeout_ms=2_000,
            heartbeat_interval_ms=300,
            max_poll_interval_ms=3_000,
        )
        self.readiness = Readiness("group")
        self.stop = threading.Event()
        self.error: Exception | None = None
        self.tracker = OffsetTracker()
        self._metrics = Metrics()
        self._loop = Consumer(
            kafka, [topic], FlowSettings(commit_interval_ms=100), self.tracker, self._done,
            lambda token, record, _: self._done(token, record), Liveness(60.0, time.monotonic()),
            self.readiness, self._metrics, time.monotonic, self.stop, lambda: None,
        )  # fmt: skip

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
            self._loop.run()
        except Fatal as error:
            self.error = error

    def _done(self, token: AckToken, _: Record) -> None:
        self.tracker.finish(token)


@pytest.fixture
def stranded(
    bootstrap: str, topics: MakeTopics, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoopThread]:
    """A loop whose client has lost a join in between two polls, as kafka-python does if nobody sees to it."""
    monkeypatch.setattr(consumer, "finish_joining", lambda _: None)
    monkeypatch.setattr(consumer, "POLL_TIMEOUT_MS", 2)
    (topic,) = topics("stranded", partitions=1)
    loop = LoopThread(bootstrap, topic)
    loop.start()
    feeding = threading.Event()
    feeder = threading.Thread(target=feed_and_grow, args=(bootstrap, topic, loop, feeding))
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
