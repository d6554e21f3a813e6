"""The demo's workers: ``python -m worker run`` as a user starts it, configured through the environment only."""

import http.client
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from deploy.embedded.child import Child
from deploy.embedded.demo.pictures import DemoError
from deploy.embedded.demo.traffic import Topics
from deploy.embedded.services import HOST, free_port
from worker.settings import REFERENCE_BUNDLE

SCRAPE_INTERVAL_S = 0.5
SCRAPE_TIMEOUT_S = 2.0
READY_TIMEOUT_S = 60.0
PREFIX = "SYNTHGATE_"


@dataclass(frozen=True)
class Tuning:
    """Parameters that a worker and the bare engine share."""

    engine_threads: int = 1
    decode_threads: int = 1
    batch_images: int = 16


@dataclass(frozen=True)
class WorkerSetup:
    """Addresses, paths and parameters of the workers."""

    bootstrap: str
    redis_url: str
    bundle: Path
    file_root: Path
    topics: Topics
    tuning: Tuning


@dataclass(frozen=True)
class Scrape:
    """One scrape of a worker's metrics."""

    assigned: int = 0
    lag: int = 0
    in_flight: int = 0
    queued_for_batch: int = 0
    batches: int = 0
    batched_images: int = 0
    cache_hits: int = 0
    events: Counter[str] = field(default_factory=Counter)

    @property
    def mean_batch(self) -> float:
        """Average number of images in a batch."""
        return self.batched_images / self.batches if self.batches else 0.0


@dataclass(frozen=True)
class Worker:
    """A running worker process."""

    name: str
    child: Child
    health_port: int


def start_worker(number: int, setup: WorkerSetup, logs: Path) -> Worker:
    """Start one worker, without waiting until it has joined the group."""
    port = free_port()
    name = f"worker-{number}"
    child = Child(
        [sys.executable, "-m", "worker", "run"],
        log_path=logs / f"{name}.log",
        env=worker_environment(name, port, setup),
    )
    return Worker(name, child, port)


def worker_environment(name: str, health_port: int, setup: WorkerSetup) -> dict[str, str]:
    """The environment of a worker; settings from the caller's own shell are removed."""
    # A short session: a killed member is noticed after it, and a first join waits for half of it.
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": setup.bootstrap,
        "KAFKA__GROUP_ID": "synthgate-demo",
        "KAFKA__CLIENT_ID": name,
        "KAFKA__SESSION_TIMEOUT_MS": 6000,
        "KAFKA__HEARTBEAT_INTERVAL_MS": 1000,
        "KAFKA__INPUT_TOPIC": setup.topics.uploaded,
        "KAFKA__VERDICT_TOPIC": setup.topics.verdicts,
        "KAFKA__DEAD_LETTER_TOPIC": setup.topics.dead_letters,
        "REDIS__URL": setup.redis_url,
        "ENGINE__BUNDLE": setup.bundle,
        # The shipped bundle is signed; a user's own bundle need not be for a local demo.
        "ENGINE__ALLOW_UNSIGNED": setup.bundle != REFERENCE_BUNDLE,
        "ENGINE__THREADS": setup.tuning.engine_threads,
        "DECODE__THREADS": setup.tuning.decode_threads,
        "BATCH__MAX_IMAGES": setup.tuning.batch_images,
        # The images are on this machine; in production private addresses must stay forbidden.
        "FETCH__SCHEMES": "http,file",
        "FETCH__ALLOW_PRIVATE_NETWORKS": "true",
        "FETCH__FILE_ROOT": setup.file_root,
        "FETCH__BACKOFF_S": 0.1,
        "FLOW__DRAIN_TIMEOUT_S": 10,
        "HEALTH__HOST": HOST,
        "HEALTH__PORT": health_port,
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return kept | {f"{PREFIX}{name}": str(value) for name, value in settings.items()}


def scrape(port: int) -> Scrape | None:
    """A worker's metrics; None while it does not answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=SCRAPE_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return parse_metrics(text)


def parse_metrics(text: str) -> Scrape:
    """Read the values that the demo shows from the Prometheus text."""
    totals: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            label = sample.labels.get("outcome") or sample.labels.get("result")
            totals[sample.name] += int(sample.value)
            totals[f"{sample.name}:{label or sample.labels.get('stage')}"] += int(sample.value)
            if sample.name == "synthgate_events_total" and label:
                outcomes[label] += int(sample.value)
    return Scrape(
        assigned=totals["synthgate_assigned_partitions"],
        lag=totals["synthgate_consumer_lag_records"],
        in_flight=totals["synthgate_in_flight_events"],
        queued_for_batch=totals["synthgate_queue_depth:batch"],
        batches=totals["synthgate_batch_images_count"],
        batched_images=totals["synthgate_batch_images_sum"],
        cache_hits=totals["synthgate_score_cache_lookups_total:hit"],
        events=outcomes,
    )


class Fleet:
    """All workers, watched by a thread that scrapes their metrics."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        """Start the thread."""
        self.workers = workers
        self._scrapes: dict[str, Scrape] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="scraper", daemon=True)
        self._thread.start()

    def scrapes(self) -> dict[str, Scrape | None]:
        """The last scrape of each worker; None where it has not answered yet."""
        return {worker.name: self._scrapes.get(worker.name) for worker in self.workers}

    def events(self) -> Counter[str]:
        """Events by outcome, over all workers."""
        return sum((scrape.events for scrape in self._scrapes.values()), Counter())

    def owns(self, partitions: int) -> bool:
        """Whether every worker has joined the group and every partition has an owner."""
        assigned = [scrape.assigned if scrape else 0 for scrape in self.scrapes().values()]
        return min(assigned) > 0 and sum(assigned) == partitions

    def check(self) -> None:
        """Raise DemoError if a worker has ended."""
        for worker in self.workers:
            status = worker.child.poll()
            if status is not None:
                raise DemoError(
                    f"{worker.name} ended with status {status}. The end of its log, "
                    f"{worker.child.log_path}:\n{worker.child.log_tail()}"
                )

    def wait_until_ready(self, partitions: int, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return once the group is complete."""
        deadline_s = time.monotonic() + timeout_s
        while not self.owns(partitions):
            self.check()
            if time.monotonic() > deadline_s:
                raise DemoError(
                    f"the workers did not share the {partitions} partitions within "
                    f"{timeout_s:g} s: {self.scrapes()}; see their logs beside "
                    f"{self.workers[0].child.log_path}"
                )
            time.sleep(0.05)

    def drain(self, timeout_s: float) -> dict[str, int | None]:
        """Send SIGTERM to all; returns each exit status, or None for a worker that had to be killed."""
        self.stop_watching()
        for worker in self.workers:
            worker.child.terminate()
        deadline_s = time.monotonic() + timeout_s
        statuses = {
            worker.name: worker.child.wait(max(deadline_s - time.monotonic(), 0.0))
            for worker in self.workers
        }
        self.kill()
        return statuses

    def stop_watching(self) -> None:
        """End the scraping thread."""
        self._stop.set()
        self._thread.join()

    def kill(self) -> None:
        """Kill all workers."""
        for worker in self.workers:
            worker.child.kill()

    def _watch(self) -> None:
        while not self._stop.is_set():
            for worker in self.workers:
                if (metrics := scrape(worker.health_port)) is not None:
                    self._scrapes[worker.name] = metrics
            self._stop.wait(SCRAPE_INTERVAL_S)
