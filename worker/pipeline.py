"""The pipeline: every stage in order, and all the wiring.

    consume ─> event ─> fetch ─> decode ─> batch ─> infer ─> decide ─> publish ─> commit
    polling    └── decode and fetch ──┘    └─── infer thread ───┘     publish    polling
    thread              threads                                       thread     thread

Queues between the threads have no bound of their own: the polling thread pauses the partitions while too
much is in flight, which bounds them all at once. An outcome, good or bad, always reaches ``publish``.
"""

import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from worker.cache import VerdictCache
from worker.engine import EngineSlots
from worker.errors import Fatal
from worker.event import Record
from worker.fetch import Fetcher
from worker.health import Liveness
from worker.infer import ScoreLoop
from worker.intake import Intake, Mirror
from worker.messages import Renderer
from worker.metrics import Metrics
from worker.offsets import OffsetTracker
from worker.publish import Abandoned, Publisher, PublishLoop
from worker.settings import Settings
from worker.types import UNREADABLE, AckToken, Clock, Decoded, Outcome, Rejected, Taken

STAGES = ("consume", "event", "fetch", "decode", "batch", "infer", "decide", "publish", "commit")
# After a drain the threads are idle; after a failure they are not waited for.
JOIN_TIMEOUT_S = 5.0
STAGE_THREADS = ("infer", "publish")


class Pipeline:
    """Runs records through the stages, from :meth:`take` to the finished token.

    Args:
        settings: All of them.
        slots: The engines in place.
        cache: Scores, marks and verdicts.
        fetcher: Gets bytes by URI.
        publisher: Puts outcomes on the topics.
        mirror: Is shown every image, for a shadow; None where there is none.
        tracker: Is told of every published record.
        liveness: Is told of progress.
        metrics: Is told of everything.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        slots: EngineSlots,
        cache: VerdictCache,
        fetcher: Fetcher,
        publisher: Publisher,
        mirror: Mirror | None,
        tracker: OffsetTracker,
        liveness: Liveness,
        metrics: Metrics,
        clock: Clock,
        wall_clock: Clock,
    ) -> None:
        self.failure: Fatal | None = None
        self._publisher, self._clock = publisher, clock
        self._decoded: queue.SimpleQueue[Decoded | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        renderer = Renderer(
            settings, settings.kafka.verdict_topic, clock, lambda: datetime.now(UTC)
        )
        score_loop = ScoreLoop(
            settings, slots, cache, self._decoded, self._outcomes.put,
            lambda taken: self._intake.take_again(taken),  # noqa: PLW0108 (it is made below)
            metrics, clock,
        )  # fmt: skip
        publish_loop = PublishLoop(
            self._outcomes, renderer, publisher, tracker, liveness, metrics, clock
        )
        self._intake = Intake(
            settings, slots, cache, fetcher,
            decoded=self._decoded.put, scored=score_loop.decide, rejected=self._outcomes.put,
            mirror=mirror, failed=self._fail, metrics=metrics, clock=clock, wall_clock=wall_clock,
        )  # fmt: skip
        self._threads = [
            threading.Thread(target=self._guarded, args=(run,), name=name, daemon=True)
            for name, run in zip(STAGE_THREADS, (score_loop.run, publish_loop.run), strict=True)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def take(self, token: AckToken, record: Record) -> None:
        """Take a record on; returns at once."""
        self._intake.take(token, record)

    def reject_unreadable(self, token: AckToken, record: Record, reason: str) -> None:
        """Take a record on of which the client could read nothing but its place."""
        taken = Taken(token, record, self._clock(), 0.0)
        message = f"{reason}: read it at its topic, partition and offset with another client"
        self._outcomes.put(Rejected(taken, None, "consume", UNREADABLE, message, 1))

    def close(self) -> None:
        """Stop the threads; what is unfinished stays unacknowledged."""
        self._intake.close()
        self._decoded.put(None)
        self._outcomes.put(None)
        for thread in self._threads:
            thread.join(timeout=JOIN_TIMEOUT_S)
        self._publisher.close()

    def _fail(self, error: Fatal) -> None:
        self.failure = error

    def _guarded(self, run: Callable[[], None]) -> None:
        """The edge of a thread: its error ends the process, and nothing unpublished is committed."""
        log = structlog.get_logger()
        try:
            run()
        except Abandoned as error:
            log.warning("abandoned", error=str(error))
        except Fatal as error:
            self._fail(error)
        except Exception as error:
            log.exception("thread_failed")
            self._fail(Fatal(f"unforeseen {type(error).__name__} in a stage: {error}"))
