"""A lane: topics, a group and keys that are one test's alone, and the workers that it starts there.

In: the addresses of a broker and a cache, a bundle. Out: :class:`Lane`.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from tests.support.events import Outgoing, send
from tests.support.results import TopicReader, committed_offsets
from tests.support.worker_process import WorkerProcess

# Short, so that a dead worker's partitions move within a test. The embedded broker waits half a session for a group,
# in whole seconds: one second below 2,000 ms, at least two from there on.
QUICK = {
    "kafka.session_timeout_ms": 1_900,
    "kafka.heartbeat_interval_ms": 300,
    "kafka.delivery_timeout_ms": 5_000,
    "flow.commit_interval_ms": 100,
    "flow.retry_backoff_s": 0.05,
    "flow.retry_backoff_max_s": 0.3,
    "flow.drain_timeout_s": 10,
    "health.port": 0,
    "health.dependency_check_s": 0.2,
    "fetch.backoff_s": 0.05,
    "fetch.timeout_s": 2,
}
# Small batches and few in flight, so that a stream lasts while something happens to it.
SLOW = {"batch__max_images": 4, "flow__max_in_flight": 32, "kafka__max_poll_records": 16}
# Commits at every turn, so that a kill is likelier to lose what would be acknowledged too early.
EAGER = SLOW | {"flow__commit_interval_ms": 1}
# Partitions pause at the limit, and the poll that reaches it may bring as many more as a poll holds.
MOST_IN_FLIGHT = SLOW["flow__max_in_flight"] - 1 + SLOW["kafka__max_poll_records"]


@dataclass
class Lane:
    """Where the events of one test go, and the workers on it."""

    bootstrap: str
    redis_url: str
    bundle: Path
    directory: Path
    input_topic: str
    verdict_topic: str
    dead_letter_topic: str
    name: str
    workers: list[WorkerProcess] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def settings(self, **changes: object) -> dict[str, object]:
        """Settings of a worker on this lane; ``kafka__group_id="x"`` changes one, None leaves one out."""
        common = {
            "kafka.bootstrap_servers": self.bootstrap,
            "kafka.group_id": self.name,
            "kafka.input_topic": self.input_topic,
            "kafka.verdict_topic": self.verdict_topic,
            "kafka.dead_letter_topic": self.dead_letter_topic,
            "redis.url": self.redis_url,
            "redis.key_prefix": self.name,
            "engine.bundle": self.bundle,
        }
        changed = {name.replace("__", "."): value for name, value in changes.items()}
        merged = {**QUICK, **common, **changed}
        return {name: value for name, value in merged.items() if value is not None}

    def launch(self, **changes: object) -> WorkerProcess:
        """Start a worker and return at once."""
        log_path = self.directory / f"worker-{next(self._numbers)}.log"
        worker = WorkerProcess(self.settings(**changes), log_path)
        self.workers.append(worker)
        return worker

    def start(self, **changes: object) -> WorkerProcess:
        """Start a worker and wait until it is ready."""
        worker = self.launch(**changes)
        worker.wait_ready()
        return worker

    def send(self, *events: Outgoing) -> list[tuple[int, int]]:
        """Send events to the input topic; partition and offset of each."""
        return send(self.bootstrap, self.input_topic, events)

    def verdicts(self) -> TopicReader:
        """A reader of the verdicts."""
        return TopicReader(self.bootstrap, self.verdict_topic)

    def dead_letters(self) -> TopicReader:
        """A reader of the dead letters."""
        return TopicReader(self.bootstrap, self.dead_letter_topic)

    def committed(self) -> dict[int, int | None]:
        """The group's committed offsets of the input topic."""
        return committed_offsets(self.bootstrap, self.name, self.input_topic)

    def redis(self) -> "Redis":
        """A client of the cache."""
        return Redis.from_url(self.redis_url)

    def stored(self, content_id: str) -> dict[str, Any] | None:
        """The verdict that Redis keeps of this content."""
        with self.redis() as client:
            document = client.get(f"{self.name}:verdict:{content_id}")
        if document is None:
            return None
        parsed: dict[str, Any] = json.loads(str(document, "utf-8"))
        return parsed

    def end(self) -> None:
        """End every worker that still runs."""
        for worker in self.workers:
            worker.kill()


@contextlib.contextmanager
def open_lane(
    bootstrap: str, redis_url: str, bundle: Path, directory: Path, topics: tuple[str, ...]
) -> Iterator[Lane]:
    """A lane on these three topics (input, verdicts, dead letters), without workers at its end."""
    input_topic, verdict_topic, dead_letter_topic = topics
    lane = Lane(
        bootstrap, redis_url, bundle, directory, input_topic, verdict_topic, dead_letter_topic,
        name=f"lane-{input_topic}",
    )  # fmt: skip
    try:
        yield lane
    finally:
        lane.end()
