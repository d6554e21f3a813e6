"""The infer thread: batch -> infer -> decide.

In: decoded images on a queue. Out: an outcome for each. Errors: :class:`worker.errors.Fatal` from the engine.
"""

import queue
from collections.abc import Callable

from engines.verify import Bundle
from worker.batch import Batcher, batches
from worker.cache import VerdictCache
from worker.decide import decide
from worker.errors import Poison
from worker.infer import Item, infer_batch
from worker.metrics import Metrics
from worker.settings import Settings
from worker.work import Clock, Decided, Decoded, Outcome, Rejected, Score, Scored


class ScoreLoop:
    """Scores batches until its queue yields None.

    Args:
        settings: Batch size and age, threshold set, block policy.
        bundle: The verified engine.
        cache: Remembers scores for repeats that are already decoded.
        decoded: The queue of images; None ends the loop.
        outcomes: Is given every outcome.
        metrics: Batch sizes and durations.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        cache: VerdictCache,
        decoded: "queue.SimpleQueue[Decoded | None]",
        outcomes: Callable[[Outcome], None],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._settings, self._bundle, self._cache = settings, bundle, cache
        self._decoded, self._outcomes = decoded, outcomes
        self._metrics, self._clock = metrics, clock
        self._thresholds = bundle.manifest.threshold_set(settings.decide.threshold_set)

    def run(self) -> None:
        """Score until the end of the queue."""
        size, age_s = self._settings.batch.max_images, self._settings.batch.max_age_ms / 1000
        for batch in batches(self._decoded, Batcher[Decoded](size, age_s), self._clock):
            self._metrics.batch_images.observe(len(batch))
            self._metrics.queue_depth.labels("batch").set(self._decoded.qsize())
            self._score(batch)

    def decide(self, scored: Scored) -> None:
        """From the score to the band; also for scores that the cache knew."""
        probability = self._bundle.manifest.score(scored.score.logit)
        decision = decide(probability, self._thresholds, self._settings.decide.block)
        self._outcomes(Decided(scored, decision, self._clock()))

    def _score(self, batch: list[Decoded]) -> None:
        results: dict[str, Score | Poison] = {}
        fresh: list[Item] = []
        for each in batch:
            # Bytes that were scored while these waited for their batch are not inferred again.
            if (known := self._cache.recent_score(each.fetched.sha256)) is not None:
                results[each.fetched.sha256] = known
            else:
                fresh.append(Item(each.fetched.sha256, each.image))
        inferred = infer_batch(self._bundle.runtime, fresh) if fresh else []
        for item, result in zip(fresh, inferred, strict=True):
            results[item.sha256] = result
            if isinstance(result, Score):
                self._cache.remember_score(item.sha256, result)
        for each in batch:
            self._conclude(each, results[each.fetched.sha256])

    def _conclude(self, item: Decoded, result: Score | Poison) -> None:
        if isinstance(result, Poison):
            self._outcomes(Rejected.because(result, item.fetched.taken, item.fetched.event))
            return
        infer_ms = self._metrics.since("infer", item.decoded_at_s, self._clock())
        self.decide(
            Scored(
                item.fetched, result, from_cache=False, decode_ms=item.decode_ms, infer_ms=infer_ms
            )
        )
