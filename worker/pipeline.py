"""The pipeline: every stage in order, and all the wiring.

    consume ─> [open ─> fetch ─> decode] ─> batch ─> infer ─> decide ─> publish ─> commit
     poll        decode / fetch threads        infer thread        publish thread    poll
     thread                                                                          thread

Queues between the threads have no bound of their own: the polling thread pauses the partitions while too
much is in flight, which bounds them all at once. An outcome, good or bad, always reaches ``publish``.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import structlog

from engines.verify import Bundle
from worker.batch import Batcher, batches
from worker.cache import VerdictCache
from worker.commit import OffsetTracker
from worker.decide import decide
from worker.decode import checked_sha256, decode, limits_of
from worker.errors import Fatal, Poison, Retryable
from worker.event import ImageEvent, Record, parse_event
from worker.fetch import Fetcher
from worker.health import Liveness
from worker.infer import Item, infer_batch
from worker.metrics import Metrics
from worker.publish import Abandoned, Publisher
from worker.render import Rendered, Renderer
from worker.settings import Settings
from worker.work import (
    Clock,
    Decided,
    Decoded,
    Fetched,
    Outcome,
    Rejected,
    Score,
    Scored,
    Taken,
    Ticket,
)

STAGES = ("consume", "event", "fetch", "decode", "batch", "infer", "decide", "publish", "commit")
PUBLISH_GROUP_MAX = 256


class Pipeline:
    """Runs records through the stages, from :meth:`take` to the finished ticket.

    Args:
        settings: All of them.
        bundle: The verified engine.
        cache: Scores, marks and verdicts.
        fetcher: Gets bytes by URI.
        publisher: Puts outcomes on the topics.
        tracker: Is told of every published record.
        liveness: Is told of progress.
        metrics: Is told of everything.
        clock: Monotonic seconds.
        wall_clock: The time of day in seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        cache: VerdictCache,
        fetcher: Fetcher,
        publisher: Publisher,
        tracker: OffsetTracker,
        liveness: Liveness,
        metrics: Metrics,
        clock: Clock,
        wall_clock: Clock,
    ) -> None:
        self._settings, self._bundle, self._cache = settings, bundle, cache
        self._fetcher, self._publisher, self._tracker = fetcher, publisher, tracker
        self._liveness, self._metrics = liveness, metrics
        self._clock, self._wall_clock = clock, wall_clock
        self._limits = limits_of(settings.decode)
        self._thresholds = bundle.manifest.threshold_set(settings.decide.threshold_set)
        self._renderer = Renderer(settings, bundle, clock, lambda: datetime.now(UTC))
        self._log = structlog.get_logger()
        self._decoders = ThreadPoolExecutor(settings.decode.threads, "decode")
        self._fetchers = ThreadPoolExecutor(settings.fetch.threads, "fetch")
        self._decoded: queue.SimpleQueue[Decoded | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._guarded, args=(run,), name=name, daemon=True)
            for name, run in (("infer", self._run_infer), ("publish", self._run_publish))
        ]
        self._closing = threading.Event()
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop the threads; what is unfinished stays unacknowledged."""
        self._closing.set()
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._decoded.put(None)
        self._outcomes.put(None)
        for thread in self._threads:
            thread.join(timeout=self._settings.flow.drain_timeout_s)
        self._publisher.close()

    def take(self, ticket: Ticket, record: Record) -> None:
        """Take a record on; returns at once."""
        queued_ms = max(self._wall_clock() * 1000 - record.timestamp_ms, 0.0)
        self._metrics.stage_seconds.labels("queued").observe(queued_ms / 1000)
        taken = Taken(ticket, record, self._clock(), queued_ms)
        self._decoders.submit(self._or_reject, taken, None, "event", lambda: self._open(taken))

    def _or_reject(
        self, taken: Taken, event: ImageEvent | None, stage: str, step: Callable[[], None]
    ) -> None:
        """Run one step of one event; whatever goes wrong becomes a dead letter of that event alone."""
        try:
            step()
        except Poison as error:
            self._outcomes.put(
                Rejected(taken, event, error.stage, error.code, error.message, error.attempts)
            )
        except Fatal as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 (the edge: an unforeseen error must not lose the event)
            if self._closing.is_set():
                return  # the pools are shut: the event stays unacknowledged and is redelivered
            self._log.exception("unforeseen_error", stage=stage, offset=taken.record.offset)
            message = f"unforeseen {type(error).__name__}: see the worker's log at this offset"
            self._outcomes.put(Rejected(taken, event, stage, "unforeseen", message, 1))

    def _open(self, taken: Taken) -> None:
        event = parse_event(taken.record)
        if event.payload is not None:
            fetched = Fetched(
                taken, event, event.payload, checked_sha256(event, event.payload), 0.0
            )
            self._or_reject(taken, event, "decode", lambda: self._decode(fetched))
        else:
            self._fetchers.submit(
                self._or_reject, taken, event, "fetch", lambda: self._fetch(taken, event)
            )

    def _fetch(self, taken: Taken, event: ImageEvent) -> None:
        started_s = self._clock()
        data = self._fetcher.fetch(event.uri or "")
        fetch_ms = self._since("fetch", started_s)
        fetched = Fetched(taken, event, data, checked_sha256(event, data), fetch_ms)
        self._decoders.submit(
            self._or_reject, taken, event, "decode", lambda: self._decode(fetched)
        )

    def _decode(self, fetched: Fetched) -> None:
        if (score := self._cached_score(fetched.sha256)) is not None:
            self._decide(Scored(fetched, score, from_cache=True, decode_ms=0.0, infer_ms=0.0))
            return
        started_s = self._clock()
        image = decode(fetched.data, self._bundle.manifest.preprocess, self._limits)
        decode_ms = self._since("decode", started_s)
        self._decoded.put(Decoded(fetched, image, decode_ms, self._clock()))

    def _cached_score(self, sha256: str) -> Score | None:
        try:
            score = self._cache.score(sha256)
        except Retryable:
            # Publishing will wait for Redis; meanwhile inferring again is no harm.
            self._metrics.score_cache.labels("unreachable").inc()
            return None
        self._metrics.score_cache.labels("hit" if score else "miss").inc()
        return score

    def _run_infer(self) -> None:
        settings = self._settings.batch
        batcher: Batcher[Decoded] = Batcher(settings.max_images, settings.max_age_ms / 1000)
        for batch in batches(self._decoded, batcher, self._clock):
            self._metrics.batch_images.observe(len(batch))
            self._metrics.queue_depth.labels("batch").set(self._decoded.qsize())
            self._infer(batch)

    def _infer(self, batch: list[Decoded]) -> None:
        recent = {
            item.fetched.sha256: self._cache.recent_score(item.fetched.sha256) for item in batch
        }
        fresh = [item for item in batch if recent[item.fetched.sha256] is None]
        results: dict[str, Score | Poison] = {key: score for key, score in recent.items() if score}
        items = [Item(item.fetched.sha256, item.image) for item in fresh]
        inferred = infer_batch(self._bundle.runtime, items) if items else []
        for item, result in zip(fresh, inferred, strict=True):
            results[item.fetched.sha256] = result
            if isinstance(result, Score):
                self._cache.remember_score(item.fetched.sha256, result)
        for item in batch:
            self._conclude(item, results[item.fetched.sha256])

    def _conclude(self, item: Decoded, result: Score | Poison) -> None:
        if isinstance(result, Poison):
            taken, event = item.fetched.taken, item.fetched.event
            self._outcomes.put(
                Rejected(taken, event, result.stage, result.code, result.message, result.attempts)
            )
            return
        infer_ms = self._since("infer", item.decoded_at_s)
        self._decide(Scored(item.fetched, result, False, item.decode_ms, infer_ms))  # noqa: FBT003 (from_cache)

    def _decide(self, scored: Scored) -> None:
        probability = self._bundle.manifest.score(scored.score.logit)
        decision = decide(probability, self._thresholds, self._settings.decide.block)
        self._outcomes.put(Decided(scored, decision, self._clock()))

    def _run_publish(self) -> None:
        while (group := self._next_group()) is not None:
            rendered = [self._renderer.render(outcome) for outcome in group]
            duplicates = self._publisher.publish([each.message for each in rendered])
            for position, each in enumerate(rendered):
                self._finish(each, duplicate=position in duplicates)

    def _next_group(self) -> list[Outcome] | None:
        """All outcomes that wait, at least one; None at the end."""
        group: list[Outcome] = []
        first = self._outcomes.get()
        if first is None:
            return None
        group.append(first)
        while len(group) < PUBLISH_GROUP_MAX:
            try:
                outcome = self._outcomes.get_nowait()
            except queue.Empty:
                break
            if outcome is None:
                self._outcomes.put(None)
                break
            group.append(outcome)
        self._metrics.queue_depth.labels("publish").set(self._outcomes.qsize())
        return group

    def _finish(self, rendered: Rendered, *, duplicate: bool) -> None:
        outcome = rendered.outcome
        rejected = isinstance(outcome, Rejected)
        taken = outcome.taken if isinstance(outcome, Rejected) else outcome.scored.fetched.taken
        name = "duplicate" if duplicate else "dead_letter" if rejected else "verdict"
        owned = self._tracker.finish(taken.ticket)
        self._liveness.progressed(self._clock())
        self._metrics.events.labels(name).inc()
        if not duplicate and isinstance(outcome, Rejected):
            self._metrics.dead_letters.labels(outcome.stage, outcome.code).inc()
        elif not duplicate and isinstance(outcome, Decided):
            self._metrics.verdicts.labels(outcome.decision.band).inc()
            self._since("publish", outcome.decided_at_s)
        total_s = taken.queued_ms / 1000 + self._clock() - taken.taken_at_s
        self._metrics.stage_seconds.labels("total").observe(total_s)
        level = self._log.warning if rejected else self._log.info
        level("image_event", outcome=name, still_owned=owned, **rendered.log)

    def _since(self, stage: str, started_s: float) -> float:
        """Observe a stage's duration; returns it in milliseconds."""
        duration_s = self._clock() - started_s
        self._metrics.stage_seconds.labels(stage).observe(duration_s)
        return duration_s * 1000

    def _guarded(self, run: Callable[[], None]) -> None:
        """The edge of a thread: its error ends the process, and nothing unpublished is committed."""
        try:
            run()
        except Abandoned as error:
            self._log.warning("abandoned", error=str(error))
        except Fatal as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 (the edge)
            self._log.exception("thread_failed")
            self.failure = Fatal(f"unforeseen {type(error).__name__} in a stage: {error}")
