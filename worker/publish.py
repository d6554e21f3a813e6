"""Publish: outcomes in, acknowledged records on the topics and verdicts in Redis out; then the offsets may go.

The order makes a crash at any point harmless. (1) What is marked as published is not sent again. (2) The rest
is sent, and every acknowledgement awaited. (3) Redis gets verdict, mark and score. (4) Only then is the record
finished. A crash between 2 and 3 sends a second copy, with the same id; nothing is ever lost.
Each step is tried until it succeeds, with growing pauses, while the broker or Redis is away.
Errors: :class:`Fatal` where the broker or Redis refuses this worker; :class:`Abandoned` if told to give up.
"""

import contextlib
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from worker.cache import VerdictCache
from worker.dead_letter import shrunk
from worker.errors import Fatal, Retryable, WorkerError
from worker.health import Liveness
from worker.kafka import REFUSED, producer_options
from worker.messages import Message, Rendered, Renderer
from worker.metrics import Metrics
from worker.offsets import OffsetTracker
from worker.settings import FlowSettings, KafkaSettings
from worker.types import Clock, Decided, Outcome, Rejected

Result = TypeVar("Result")
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class Abandoned(WorkerError):
    """The worker was told to stop while the broker or Redis was away; nothing was acknowledged."""


class Publisher:
    """Sends messages so that each is on its topic, once where nothing crashes.

    Args:
        kafka: The brokers.
        flow: The pauses between attempts.
        cache: Marks of what was published.
        metrics: Counts retries and stale verdicts.
        pause: Called with seconds between attempts; returns True to give up.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        flow: FlowSettings,
        cache: VerdictCache,
        metrics: Metrics,
        pause: Callable[[float], bool],
    ) -> None:
        self._options = producer_options(kafka)
        # A little more than the producer's own limit: it reports a timeout before we do.
        self._ack_timeout_s = kafka.delivery_timeout_ms / 1000 + 5
        self._flow = flow
        self._cache = cache
        self._metrics = metrics
        self._pause = pause
        self._producer: KafkaProducer | None = None
        self._log = structlog.get_logger()

    def publish(self, messages: Sequence[Message]) -> set[int]:
        """Publish a group; returns the positions of those that had been published before.

        Raises:
            Fatal: The broker or Redis refuses this worker.
            Abandoned: ``pause`` said to give up.
        """
        ids = [message.published.id for message in messages]
        known = self._until_done("redis", lambda: self._cache.published(ids))
        fresh: dict[str, Message] = {}
        duplicates: set[int] = set()
        for position, message in enumerate(messages):
            if message.published.id in known or message.published.id in fresh:
                duplicates.add(position)
            else:
                fresh[message.published.id] = message
        if fresh:
            self._send_all(list(fresh.values()))
            marks = [message.published for message in fresh.values()]
            answers = self._until_done("redis", lambda: self._cache.record(marks))
            self._metrics.stale_verdicts.inc(answers.count("stale"))
        return duplicates

    def close(self) -> None:
        """Let go of the brokers."""
        if self._producer is not None:
            with contextlib.suppress(KafkaError):
                self._producer.close(timeout=2)
            self._producer = None

    def _send_all(self, messages: list[Message]) -> None:
        """Send until every message is acknowledged; only what failed is sent again."""
        waiting = messages

        def attempt() -> None:
            nonlocal waiting
            waiting = self._send(waiting)
            if waiting:
                raise Retryable(f"{len(waiting)} records were not acknowledged")

        self._until_done("kafka", attempt)

    def _send(self, messages: list[Message]) -> list[Message]:
        """Send a group once; those to send again, without their value where it is too large."""
        failures: list[tuple[Message, KafkaError]] = []
        futures = []
        producer = self._connected()
        for message in messages:
            try:
                future = producer.send(
                    message.topic, message.value, message.key, list(message.headers)
                )
                futures.append((message, future))
            except KafkaError as error:
                failures.append((message, error))
        # One deadline for all: what a client that lost its broker never answers would else be waited for one
        # record after the other.
        deadline_s = time.monotonic() + self._ack_timeout_s
        for message, future in futures:
            try:
                future.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except KafkaError as error:
                failures.append((message, error))
        again = [self._second_try(message, error) for message, error in failures]
        if any(new is old for new, (old, _) in zip(again, failures, strict=True)):
            self._drop_producer()
        return again

    def _connected(self) -> KafkaProducer:
        if self._producer is None:
            try:
                self._producer = KafkaProducer(**self._options)
            except KafkaError as error:
                raise _classified(error) from error
        return self._producer

    def _second_try(self, message: Message, error: KafkaError) -> Message:
        """What to send after a failure: the same again, or less of it where it was too large."""
        if isinstance(error, TOO_LARGE):
            smaller = shrunk(message.key, message.headers)
            if smaller is None:
                raise Fatal(
                    f"a record of {len(message.value or b'')} bytes is too large for "
                    f"{message.topic}: raise the topic's max.message.bytes"
                ) from error
            key, value, headers = smaller
            return replace(message, key=key, value=value, headers=headers)
        if isinstance(error, REFUSED):
            raise _classified(error) from error
        self._log.warning("publish_failed", topic=message.topic, error=str(error))
        return message

    def _drop_producer(self) -> None:
        """Send with a new one: an idempotent producer does not recover its sequence at a broker that restarted.

        Only after every record of the group was answered or given up: what the old one still held could
        arrive beside the second copy.
        """
        if self._producer is not None:
            # It flushes first, and complains of what is not done in no time.
            with contextlib.suppress(KafkaError):
                self._producer.close(timeout=0)
            self._producer = None

    def _until_done(self, target: str, step: Callable[[], Result]) -> Result:
        pause_s = self._flow.retry_backoff_s
        while True:
            try:
                result = step()
            except Retryable as error:
                self._metrics.dependency_up.labels(target).set(0)
                self._metrics.publish_retries.labels(target).inc()
                self._log.warning("publish_retry", target=target, error=str(error), pause_s=pause_s)
                if self._pause(pause_s):
                    raise Abandoned(f"{target} is away: {error}") from error
                pause_s = min(pause_s * 2, self._flow.retry_backoff_max_s)
            else:
                self._metrics.dependency_up.labels(target).set(1)
                return result


def _classified(error: KafkaError) -> WorkerError:
    if isinstance(error, REFUSED):
        return Fatal(f"the broker refuses this worker (kafka.*): {error!r}")
    return Retryable(f"the broker cannot be reached: {error!r}")


GROUP_MAX = 256


class PublishLoop:
    """Publishes until its queue yields None.

    Args:
        outcomes: The queue; None ends the loop.
        renderer: Writes the messages.
        publisher: Gets them acknowledged.
        tracker: Is told of every published record.
        liveness: Is told of progress.
        metrics: Outcomes and durations.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        outcomes: "queue.SimpleQueue[Outcome | None]",
        renderer: Renderer,
        publisher: Publisher,
        tracker: OffsetTracker,
        liveness: Liveness,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._outcomes, self._renderer, self._publisher = outcomes, renderer, publisher
        self._tracker, self._liveness = tracker, liveness
        self._metrics, self._clock = metrics, clock
        self._log = structlog.get_logger()

    def run(self) -> None:
        """Publish until the end of the queue."""
        while group := self._next_group():
            rendered = [self._renderer.render(outcome) for outcome in group]
            duplicates = self._publisher.publish([each.message for each in rendered])
            for position, each in enumerate(rendered):
                self._finish(each, duplicate=position in duplicates)

    def _next_group(self) -> list[Outcome]:
        """All outcomes that wait, at least one; none at the end."""
        group: list[Outcome] = []
        outcome = self._outcomes.get()
        while outcome is not None:
            group.append(outcome)
            if len(group) == GROUP_MAX:
                break
            try:
                outcome = self._outcomes.get_nowait()
            except queue.Empty:
                break
        else:
            self._outcomes.put(None)  # the end stays the end for the next look
        self._metrics.queue_depth.labels("publish").set(self._outcomes.qsize())
        return group

    def _finish(self, rendered: Rendered, *, duplicate: bool) -> None:
        outcome = rendered.outcome
        taken = outcome.taken if isinstance(outcome, Rejected) else outcome.scored.fetched.taken
        owned = self._tracker.finish(taken.token)
        now_s = self._clock()
        self._liveness.progressed(now_s)
        self._metrics.observe("total", taken.queued_ms / 1000 + now_s - taken.taken_at_s)
        if isinstance(outcome, Decided) and not duplicate:
            self._metrics.since("publish", outcome.decided_at_s, now_s)
        name = "duplicate" if duplicate else self._count(outcome)
        self._metrics.events.labels(name).inc()
        level = self._log.warning if isinstance(outcome, Rejected) else self._log.info
        level("image_event", outcome=name, still_owned=owned, **rendered.log)

    def _count(self, outcome: Outcome) -> str:
        if isinstance(outcome, Rejected):
            self._metrics.dead_letters.labels(outcome.stage, outcome.code).inc()
            return "dead_letter"
        self._metrics.verdicts.labels(outcome.decision.band).inc()
        return "verdict"


CLOSE_TIMEOUT_S = 2.0


class ShadowPublisher:
    """Sends messages from one thread, and counts what became of them.

    Args:
        kafka: The brokers.
        metrics: ``synthgate_shadow_events_total``.
    """

    def __init__(self, kafka: KafkaSettings, metrics: Metrics) -> None:
        self._options = producer_options(kafka)
        self._metrics = metrics
        self._producer: KafkaProducer | None = None
        self._log = structlog.get_logger()

    def send(self, message: Message) -> None:
        """Put a message on its way; waits for no acknowledgement, at most for room or for a first answer."""
        try:
            if self._producer is None:
                self._producer = KafkaProducer(**self._options)
            future = self._producer.send(
                message.topic, message.value, message.key, list(message.headers)
            )
        except KafkaError as error:
            self._lost(error)
        else:
            future.add_callback(lambda _: self._metrics.shadow_events.labels("published").inc())
            future.add_errback(self._lost)

    def close(self) -> None:
        """Let go of the brokers, after a moment for what is on its way."""
        if self._producer is not None:
            with contextlib.suppress(KafkaError):
                self._producer.close(timeout=CLOSE_TIMEOUT_S)
            self._producer = None

    def _lost(self, error: BaseException) -> None:
        self._metrics.shadow_events.labels("failed").inc()
        self._log.warning("shadow_publish_failed", error=repr(error))
