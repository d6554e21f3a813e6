"""Handing partitions over: what was taken of them is published and committed before another worker gets them.

In: kafka-python's calls at a rebalance. Out: closed books of the partitions that moved.
"""

import threading
from collections.abc import Collection, Mapping

import structlog
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import KafkaError
from kafka.net.selector import KernelEvent

from worker.commit import OffsetTracker, Partition
from worker.health import Readiness
from worker.metrics import Metrics
from worker.work import Clock

# How often a rebalance callback looks whether the last records are published.
REVOKE_CHECK_S = 0.02


class Handover(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Publishes and commits what was taken of partitions before they move to another worker."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        tracker: OffsetTracker,
        drain_timeout_s: float,
        leaving: threading.Event,
        readiness: Readiness,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._consumer = consumer
        self._tracker = tracker
        self._drain_timeout_s = drain_timeout_s
        self._leaving = leaving
        self._readiness = readiness
        self._metrics = metrics
        self._clock = clock
        self._log = structlog.get_logger()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Runs on the consumer's event loop, which goes on sending heartbeats at every ``await``."""
        keys = partition_keys(revoked)
        deadline_s = self._clock() + self._drain_timeout_s
        while (
            self._tracker.in_flight(keys)
            and self._clock() < deadline_s
            and not self._leaving.is_set()  # the drain before leaving has had its time
        ):
            await KernelEvent("_sleep", REVOKE_CHECK_S)
        if offsets := self._tracker.committable(keys):
            try:
                await self._consumer.commit_async(kafka_offsets(offsets))
            except KafkaError as error:
                # The next owner starts at the last commit and publishes under the same ids.
                self._log.warning("commit_at_revoke_failed", error=repr(error))
        self._let_go("revoked", keys)

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Too late to commit: the next owner already has them."""
        self._readiness.set("group", "membership lost, joining again")
        self._let_go("lost", partition_keys(lost))

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Nothing to prepare: the book of a partition opens with its first record."""
        self._readiness.set("group", None)
        self._metrics.rebalances.labels("assigned").inc()
        self._log.info("partitions_assigned", partitions=sorted(partition_keys(assigned)))

    def _let_go(self, kind: str, keys: set[Partition]) -> None:
        unfinished = self._tracker.forget(keys)
        self._metrics.rebalances.labels(kind).inc()
        self._metrics.events.labels("moved").inc(unfinished)
        for topic, partition in keys:
            self._metrics.lag.labels(topic, partition).set(0)
        self._log.info(f"partitions_{kind}", partitions=sorted(keys), unfinished=unfinished)


def kafka_offsets(offsets: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Offsets as kafka-python commits them."""
    return {
        TopicPartition(*key): OffsetAndMetadata(offset, "", -1) for key, offset in offsets.items()
    }


def partition_keys(partitions: Collection[TopicPartition]) -> set[Partition]:
    """Partitions as the tracker names them."""
    return {(each.topic, each.partition) for each in partitions}
