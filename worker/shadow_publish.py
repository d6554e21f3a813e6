"""Shadow verdicts to their topic: sent, and not waited for.

In: messages. Out: records on the topic, or a count of those that did not get there. Errors: none leave here.
A producer of its own: what is wrong with the shadow's topic must not hold up the verdicts that decide.
"""

import contextlib

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError

from worker.kafka_options import producer_options
from worker.metrics import Metrics
from worker.publish import Message
from worker.settings import KafkaSettings

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
