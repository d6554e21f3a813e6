"""The publish stage: outcomes to the topics and to Redis, then each record acknowledged.

The order makes a crash at any point harmless. (1) What is marked as published is not sent again. (2) The rest
is sent, and every acknowledgement awaited. (3) Redis gets verdict, mark and score. (4) Only then is the record
acknowledged. A crash between 2 and 3 sends a second copy with the same id; nothing is ever lost. Each step is
retried with growing pauses while the broker or Redis is unavailable.
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

from worker.dead_letter import shrunk
from worker.errors import Fatal, Retryable, WorkerError
from worker.kafka import REFUSED, producer_options
from worker.messages import Message, Rendered, Renderer
from worker.metrics import Metrics
from worker.services import Services
from worker.settings import KafkaSettings
from worker.types import Decided, Links, Outcome, Payload, Rejected

Result = TypeVar("Result")
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
GROUP_MAX = 256
CLOSE_TIMEOUT_S = 2.0


class Abandoned(WorkerError):
    """The worker was stopped while the broker or Redis was unavailable; nothing was acknowledged."""


class PublishStage:
    """Publishes outcomes in groups, acknowledges their records, and writes one log line for each.

    Args:
        services: The shared parts of the worker.
        links: ``acknowledge`` takes the token of every published record.
    """

    def __init__(self, services: Services, links: Links) -> None:
        settings = services.settings
        self._publisher = Publisher(services)
        self._renderer = Renderer(settings, settings.kafka.verdict_topic, services.clocks)
        self._acknowledge = links.acknowledge
        self._liveness, self._metrics = services.health.liveness, services.metrics
        self._clock = services.clocks.monotonic
        self._outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._log = structlog.get_logger()

    def submit(self, payload: Payload) -> None:
        """Take an outcome; returns at once.

        Raises:
            TypeError: The payload is not an outcome: a stage before this one must decide about it.
        """
        if not isinstance(payload, Decided | Rejected):
            raise TypeError(f"publish takes outcomes, and got {type(payload).__name__}")
        self._outcomes.put(payload)

    def run(self) -> None:
        """Publish until closed.

        Raises:
            Fatal: The broker or Redis refuses this worker.
            Abandoned: The worker stops while one of them is unavailable.
        """
        try:
            while group := self._next_group():
                rendered = [self._renderer.render(outcome) for outcome in group]
                duplicates = self._publisher.publish([each.message for each in rendered])
                for position, each in enumerate(rendered):
                    self._finish(each, duplicate=position in duplicates)
        finally:
            self._publisher.close()

    def close(self) -> None:
        """End the run after what waits."""
        self._outcomes.put(None)

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
            self._outcomes.put(None)  # the next call ends at once
        self._metrics.queue_depth.labels("publish").set(self._outcomes.qsize())
        return group

    def _finish(self, rendered: Rendered, *, duplicate: bool) -> None:
        outcome = rendered.outcome
        owned = self._acknowledge(outcome.event.token)
        now_s = self._clock()
        self._liveness.progressed_at_s = now_s
        timings, seconds = outcome.event.timings, self._metrics.stage_seconds
        seconds.labels("total").observe(timings.queued_ms / 1000 + now_s - timings.received_at_s)
        if isinstance(outcome, Decided) and not duplicate:
            seconds.labels("publish").observe(now_s - outcome.decided_at_s)
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


class Publisher:
    """Sends messages until each is on its topic: once, unless the worker crashes.

    Args:
        services: Brokers, pauses between attempts, cache, metrics.
    """

    def __init__(self, services: Services) -> None:
        kafka = services.settings.kafka
        self._options = producer_options(kafka)
        # A little more than the producer's own limit: it reports a timeout before we do.
        self._ack_timeout_s = kafka.delivery_timeout_ms / 1000 + 5
        self._flow = services.settings.flow
        self._cache, self._metrics = services.cache, services.metrics
        self._pause = services.clocks.pause
        self._producer: KafkaProducer | None = None
        self._log = structlog.get_logger()

    def publish(self, messages: Sequence[Message]) -> set[int]:
        """Publish a group; returns the positions of those that had been published before.

        Raises:
            Fatal: The broker or Redis refuses this worker.
            Abandoned: The worker stops while one of them is unavailable.
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
        """Release the connections to the brokers."""
        if self._producer is not None:
            with contextlib.suppress(KafkaError):
                self._producer.close(timeout=CLOSE_TIMEOUT_S)
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
        """Send a group once; returns those to send again, without their value where it is too large."""
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
        # One deadline for all: a client that lost its broker may never answer, and would otherwise be waited for
        # once a record.
        deadline_s = time.monotonic() + self._ack_timeout_s
        for message, future in futures:
            try:
                future.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except KafkaError as error:
                failures.append((message, error))
        retries = [self._retry(message, error) for message, error in failures]
        if any(new is old for new, (old, _) in zip(retries, failures, strict=True)):
            self._drop_producer()
        return retries

    def _connected(self) -> KafkaProducer:
        if self._producer is None:
            try:
                self._producer = KafkaProducer(**self._options)
            except KafkaError as error:
                raise _classified(error) from error
        return self._producer

    def _retry(self, message: Message, error: KafkaError) -> Message:
        """What to send after a failure: the same message, or a smaller one if it was too large."""
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
        """Use a new producer: an idempotent one does not recover its sequence at a broker that restarted.

        Called once every record of the group was answered or given up: a record that the old producer still held
        could arrive beside its second copy.
        """
        if self._producer is not None:
            # It flushes first, and raises because that takes longer than no time.
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
                    raise Abandoned(f"{target} is unavailable: {error}") from error
                pause_s = min(pause_s * 2, self._flow.retry_backoff_max_s)
            else:
                self._metrics.dependency_up.labels(target).set(1)
                return result


class ShadowPublisher:
    """Sends shadow verdicts without waiting, and counts the results; raises nothing.

    It has a producer of its own: a problem with the shadow topic must not hold up the deciding verdicts.

    Args:
        kafka: The brokers.
        metrics: ``synthgate_shadow_events_total``.
    """

    def __init__(self, kafka: KafkaSettings, metrics: Metrics) -> None:
        self._options = producer_options(kafka)
        self._events = metrics.shadow_events
        self._producer: KafkaProducer | None = None
        self._log = structlog.get_logger()

    def send(self, message: Message) -> None:
        """Send a message; waits at most for buffer space or a first response, not for the acknowledgement."""
        try:
            if self._producer is None:
                self._producer = KafkaProducer(**self._options)
            future = self._producer.send(
                message.topic, message.value, message.key, list(message.headers)
            )
        except KafkaError as error:
            self._fail(error)
        else:
            future.add_callback(lambda _: self._events.labels("published").inc())
            future.add_errback(self._fail)

    def close(self) -> None:
        """Release the connections, after a moment for what is being sent."""
        if self._producer is not None:
            with contextlib.suppress(KafkaError):
                self._producer.close(timeout=CLOSE_TIMEOUT_S)
            self._producer = None

    def _fail(self, error: BaseException) -> None:
        self._events.labels("failed").inc()
        self._log.warning("shadow_publish_failed", error=repr(error))


def _classified(error: KafkaError) -> WorkerError:
    if isinstance(error, REFUSED):
        return Fatal(f"the broker refuses this worker (kafka.*): {error!r}")
    return Retryable(f"the broker cannot be reached: {error!r}")
