"""The infer thread: batch -> infer -> decide.

In: decoded images on a queue, each cropped for an engine. Out: an outcome for each, and their leases given back.
A batch is of one engine, so an exchange falls between two batches.
Errors: :class:`worker.errors.Fatal` from the engine that decides; a canary that breaks loses its seat instead.
"""

import queue
from collections.abc import Callable

import structlog

from worker.batch import engine_batches
from worker.cache import VerdictCache
from worker.decide import decided
from worker.errors import Fatal, Poison
from worker.infer import Item, infer_batch
from worker.metrics import Metrics
from worker.seats import Seats
from worker.settings import Settings
from worker.work import (
    Clock,
    Decoded,
    Outcome,
    Rejected,
    Score,
    Scored,
    ScoreKey,
    Taken,
)


class ScoreLoop:
    """Scores batches until its queue yields None.

    Args:
        settings: Batch size and age, block policy.
        seats: Get the leases back, and are told of a canary that broke.
        cache: Remembers scores for repeats that are already decoded.
        decoded: The queue of images; None ends the loop.
        outcomes: Is given every outcome.
        again: Is given what a broken canary did not score, for another engine.
        metrics: Batch sizes and durations.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        seats: Seats,
        cache: VerdictCache,
        decoded: "queue.SimpleQueue[Decoded | None]",
        outcomes: Callable[[Outcome], None],
        again: Callable[[Taken], None],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._settings, self._seats, self._cache = settings, seats, cache
        self._decoded, self._outcomes, self._again = decoded, outcomes, again
        self._metrics, self._clock = metrics, clock

    def run(self) -> None:
        """Score until the end of the queue."""
        for batch in engine_batches(self._decoded, self._settings.batch, self._clock):
            self._metrics.batch_images.observe(len(batch))
            self._metrics.queue_depth.labels("batch").set(self._decoded.qsize())
            try:
                self._score(batch)
            except Fatal as error:
                self._without_canary(batch, error)
            finally:
                for each in batch:
                    self._seats.release(each.engine)

    def decide(self, scored: Scored) -> None:
        """From the score to the band; also for scores that the cache knew."""
        self._outcomes(decided(scored, self._settings.decide.block, self._clock()))

    def _score(self, batch: list[Decoded]) -> None:
        engine = batch[0].engine
        results: dict[str, Score | Poison] = {}
        fresh: list[Item] = []
        for each in batch:
            # Bytes that were scored while these waited for their batch are not inferred again.
            sha256 = each.fetched.sha256
            if (known := self._cache.recent_score(ScoreKey(sha256, engine.id))) is not None:
                results[sha256] = known
            else:
                fresh.append(Item(sha256, each.image))
        inferred = infer_batch(engine.bundle.runtime, fresh) if fresh else []
        for item, result in zip(fresh, inferred, strict=True):
            results[item.sha256] = result
            if isinstance(result, Score):
                self._cache.remember_score(ScoreKey(item.sha256, engine.id), result)
        for each in batch:
            self._conclude(each, results[each.fetched.sha256])

    def _conclude(self, item: Decoded, result: Score | Poison) -> None:
        if isinstance(result, Poison):
            self._outcomes(Rejected.because(result, item.fetched.taken, item.fetched.event))
            return
        infer_ms = self._metrics.since("infer", item.decoded_at_s, self._clock())
        self.decide(Scored(item.fetched, item.engine, result, False, item.decode_ms, infer_ms))  # noqa: FBT003 (not from the cache)

    def _without_canary(self, batch: list[Decoded], error: Fatal) -> None:
        """A canary is there to be found out: what it cannot score is scored by the engine in place."""
        engine = batch[0].engine
        if engine.role != "canary":
            raise error
        if self._seats.unseat(engine):
            self._metrics.swapped(engine.role, "broken")
            structlog.get_logger().error(
                "engine_broken", role=engine.role, version=engine.model.version, error=str(error)
            )
        for each in batch:
            self._again(each.fetched.taken)
