"""The consumer: records in, events out, and offsets committed; polling never stops while there is work.

One thread owns it. It polls, submits records to the pipeline, pauses its partitions while enough is in flight,
and commits the offsets of what was published. Inference runs elsewhere, so a long batch never delays a
heartbeat. Before a partition moves to another worker, its received records are published and committed.
"""

import contextlib
import threading
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import structlog
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import CorruptRecordError, IllegalStateError, KafkaError
from kafka.net.selector import KernelEvent

from worker.errors import Fatal
from worker.event import Record
from worker.health import Liveness, Readiness
from worker.kafka import LOST, MEMBER_REFUSED, consumer_options
from worker.offsets import OffsetTracker, Partition
from worker.services import Services
from worker.settings import KafkaSettings
from worker.types import UNREADABLE, Event, Received, Rejected, Sink, Timings

POLL_TIMEOUT_MS = 100
COMMIT_TIMEOUT_MS = 10_000
OBSERVE_INTERVAL_S = 0.5
# The polling thread waits for the answer about the ends of paused partitions, so not for long.
END_OFFSETS_TIMEOUT_MS = 500
# How often a rebalance callback checks whether the last records are published.
REVOKE_CHECK_S = 0.02
# How long the last commit is retried once all is published: without it another worker finds the marks of what was.
SETTLE_TIMEOUT_S = 5.0


class Downstream(Protocol):
    """The pipeline as the consumer sees it."""

    @property
    def submit(self) -> Sink:
        """Takes what was consumed; returns at once."""
        ...

    @property
    def failure(self) -> Fatal | None:
        """The error that must end this process."""
        ...


class Consumer:
    """The polling thread's work.

    Args:
        services: The shared parts of the worker.
        offsets: Which offsets may be committed.
        pipeline: Takes the records.
        stop: Set to end the loop; it drains first.
    """

    def __init__(
        self,
        services: Services,
        offsets: OffsetTracker,
        pipeline: Downstream,
        stop: threading.Event,
    ) -> None:
        self._services, self._offsets, self._pipeline, self._stop = (
            services,
            offsets,
            pipeline,
            stop,
        )
        self._kafka, self._flow = services.settings.kafka, services.settings.flow
        self._metrics, self._clock = services.metrics, services.clocks.monotonic
        self._watchdog = CommitWatchdog(self._kafka, services.health.readiness)
        self._log = structlog.get_logger()
        self._leaving = threading.Event()
        self._next_commit_s = 0.0
        self._next_observation_s = 0.0
        self._lag = 0

    def run(self) -> bool:
        """Poll until stopped, then drain.

        Returns:
            Whether everything that was received has been published and committed.

        Raises:
            Fatal: The broker refuses this worker, or a stage of the pipeline failed.
        """
        consumer = self._subscribed()
        try:
            while not self._stop.is_set():
                self._raise_failure()
                self._apply_pressure(consumer)
                self._poll(consumer)
                self._commit_if_due(consumer)
            return self._drain(consumer)
        finally:
            self._leaving.set()
            consumer.close(autocommit=False, timeout_ms=COMMIT_TIMEOUT_MS)

    def _subscribed(self) -> KafkaConsumer:
        try:
            consumer = KafkaConsumer(
                partition_assignment_strategy=[CooperativeStickyAssignor],
                **consumer_options(self._kafka),
            )
            listener = RebalanceListener(consumer, self._services, self._offsets, self._leaving)
            self._refuse_missing_topics(consumer)
            consumer.subscribe([self._kafka.input_topic], listener=listener)
        except KafkaError as error:
            raise Fatal(
                f"no broker accepts this worker at {self._kafka.bootstrap_servers} "
                f"(check kafka.bootstrap_servers, security_protocol, sasl_*, ssl_*): {error!r}"
            ) from error
        return consumer

    def _refuse_missing_topics(self, consumer: KafkaConsumer) -> None:
        """The client would wait for a misspelt topic without end."""
        if missing := sorted(set(self._services.settings.topics) - consumer.topics()):
            raise Fatal(
                f"no such topic: {', '.join(missing)}: create it, correct kafka.*_topic, or let "
                "this worker describe it"
            )

    def _raise_failure(self) -> None:
        if (error := self._pipeline.failure) is not None:
            raise error

    def _apply_pressure(self, consumer: KafkaConsumer) -> None:
        """Pause when enough is in flight, resume at half of it; polling goes on either way."""
        count, size_bytes = self._offsets.in_flight(), self._offsets.in_flight_bytes
        fullness = max(
            count / self._flow.max_in_flight, size_bytes / self._flow.max_in_flight_bytes
        )
        paused = consumer.paused()
        # A rebalance on the consumer's own thread may take a partition away between look and call.
        with contextlib.suppress(KeyError, IllegalStateError):
            if fullness >= 1 or (paused and fullness > 0.5):  # noqa: PLR2004 (half full)
                # Partitions that came with a rebalance are paused with the others.
                consumer.pause(*(consumer.assignment() - paused))
            elif paused:
                consumer.resume(*paused)
        self._metrics.paused.set(1 if consumer.paused() else 0)
        self._metrics.in_flight_events.set(count)
        self._metrics.in_flight_bytes.set(size_bytes)

    def _poll(self, consumer: KafkaConsumer, *, draining: bool = False) -> None:
        """One poll; while draining no record is received, even of partitions that a rebalance just brought."""
        waiting = self._lag + self._offsets.in_flight()
        beat(self._services.health.liveness, self._clock(), waiting)
        free_parked(consumer)
        finish_joining(consumer)
        try:
            polled = consumer.poll(timeout_ms=POLL_TIMEOUT_MS)
        except MEMBER_REFUSED as error:
            raise Fatal(f"the broker refuses this worker (kafka.*): {error!r}") from error
        except CorruptRecordError as error:
            self._skip_unreadable(consumer, error, draining=draining)
            return
        except KafkaError as error:
            # kafka-python reconnects by itself; the pause keeps the log readable while a broker is down.
            self._log.warning("poll_failed", error=repr(error))
            self._stop.wait(self._flow.retry_backoff_s)
            return
        owned = consumer.assignment()
        # Set here, because kafka-python calls the listener only for what was added or taken away.
        self._metrics.assigned.set(len(owned))
        for partition, records in polled.items():
            # Records of a partition that has moved meanwhile belong to its new owner. So do those that come while
            # draining: they are never received, so never committed.
            for record in records if partition in owned and not draining else ():
                self._pipeline.submit(Received(self._event(_record(record))))
        self._observe(consumer)

    def _event(self, record: Record) -> Event:
        """The envelope of a record, which is in flight from now on."""
        queued_s = max(self._services.clocks.wall() - record.timestamp_ms / 1000, 0.0)
        self._metrics.stage_seconds.labels("queued").observe(queued_s)
        return Event(self._offsets.receive(record), record, Timings(self._clock(), queued_s * 1000))

    def _skip_unreadable(
        self, consumer: KafkaConsumer, error: CorruptRecordError, *, draining: bool
    ) -> None:
        """Go past a record that kafka-python cannot read, and leave a dead letter that says where it is.

        Examples are a header whose name is not UTF-8 and a batch that fails its checksum. The client does not say
        which record it was, and would otherwise retry for ever within one call of ``poll``.
        """
        partition = unreadable_partition(consumer)
        if partition is None:
            raise Fatal(
                f"a record cannot be read, and the client does not say which: {error}"
            ) from error
        offset = consumer.position(partition)
        if not draining:
            self._log.error("record_unreadable", partition=partition.partition, offset=offset)
            record = Record(partition.topic, partition.partition, offset, 0, None, None, ())
            # Its timestamp is unknown, so it counts as just written.
            event = Event(self._offsets.receive(record), record, Timings(self._clock(), 0.0))
            message = f"{error}: read it at its topic, partition and offset with another client"
            self._pipeline.submit(Rejected(event, None, "consume", UNREADABLE, message, 1))
        consumer.seek(partition, offset + 1)

    def _observe(self, consumer: KafkaConsumer) -> None:
        now_s = self._clock()
        if now_s >= self._next_observation_s:
            self._next_observation_s = now_s + OBSERVE_INTERVAL_S
            lag_of = lags(consumer)
            self._lag = sum(lag_of.values())
            for partition, lag in lag_of.items():
                self._metrics.lag.labels(partition.topic, partition.partition).set(lag)

    def _commit_if_due(self, consumer: KafkaConsumer) -> None:
        if self._clock() >= self._next_commit_s:
            self._commit(consumer)
            self._next_commit_s = self._clock() + self._flow.commit_interval_ms / 1000

    def _commit(self, consumer: KafkaConsumer) -> bool:
        offsets = self._offsets.committable(partition_keys(consumer.assignment()))
        if not offsets:
            self._watchdog.accepted()
            return True
        try:
            consumer.commit(kafka_offsets(offsets), timeout_ms=COMMIT_TIMEOUT_MS)
        except LOST as error:
            self._metrics.commits.labels("lost").inc()
            self._log.warning("commit_refused", error=repr(error))
            self._watchdog.refused(self._clock())
            return False
        except KafkaError as error:
            if isinstance(error, MEMBER_REFUSED):
                raise Fatal(f"the broker refuses this worker (kafka.*): {error!r}") from error
            self._metrics.commits.labels("failed").inc()
            self._log.warning("commit_failed", error=repr(error))
            return False
        self._offsets.committed(offsets)
        self._watchdog.accepted()
        self._metrics.commits.labels("done").inc()
        return True

    def _drain(self, consumer: KafkaConsumer) -> bool:
        """Finish what was received, and commit it; polling keeps the membership meanwhile."""
        deadline_s = self._clock() + self._flow.drain_timeout_s
        self._log.info("draining", in_flight=self._offsets.in_flight())
        while self._offsets.in_flight() and self._clock() < deadline_s:
            self._keep_membership(consumer)
        # A commit is refused while the group rebalances, as when all workers are stopped at once: polling takes
        # part in the rebalance, and the next commit is accepted.
        deadline_s = min(deadline_s, self._clock() + SETTLE_TIMEOUT_S)
        while not (committed := self._commit(consumer)) and self._clock() < deadline_s:
            self._keep_membership(consumer)
        unfinished = self._offsets.in_flight()
        self._log.info("drained", unfinished=unfinished, committed=committed)
        return committed and not unfinished

    def _keep_membership(self, consumer: KafkaConsumer) -> None:
        """One more poll, which receives nothing."""
        self._raise_failure()
        with contextlib.suppress(KeyError, IllegalStateError):
            consumer.pause(*consumer.assignment())
        self._poll(consumer, draining=True)


class RebalanceListener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Publishes and commits what was received of partitions before they move to another worker.

    Args:
        consumer: Commits.
        services: The shared parts of the worker.
        offsets: Which offsets may be committed.
        leaving: Set once the drain before leaving has had its time.
    """

    def __init__(
        self,
        consumer: KafkaConsumer,
        services: Services,
        offsets: OffsetTracker,
        leaving: threading.Event,
    ) -> None:
        self._consumer, self._offsets, self._leaving = consumer, offsets, leaving
        self._drain_timeout_s = services.settings.flow.drain_timeout_s
        self._readiness, self._metrics = services.health.readiness, services.metrics
        self._clock = services.clocks.monotonic
        self._log = structlog.get_logger()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Runs on the consumer's event loop, which sends heartbeats at every ``await``."""
        keys = partition_keys(revoked)
        deadline_s = self._clock() + self._drain_timeout_s
        while (
            self._offsets.in_flight(keys)
            and self._clock() < deadline_s
            and not self._leaving.is_set()
        ):
            await KernelEvent("_sleep", REVOKE_CHECK_S)
        if offsets := self._offsets.committable(keys):
            try:
                await self._consumer.commit_async(kafka_offsets(offsets))
            except KafkaError as error:
                # The next owner starts at the last commit and publishes under the same ids.
                self._log.warning("commit_at_revoke_failed", error=repr(error))
        self._forget("revoked", keys)

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Too late to commit: the next owner already has them."""
        self._readiness.set("group", "membership lost, joining again")
        self._forget("lost", partition_keys(lost))

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Nothing to prepare: the offsets of a partition are tracked from its first record."""
        self._readiness.set("group", None)
        self._metrics.rebalances.labels("assigned").inc()
        self._log.info("partitions_assigned", partitions=sorted(partition_keys(assigned)))

    def _forget(self, kind: str, keys: set[Partition]) -> None:
        unfinished = self._offsets.forget(keys)
        self._metrics.rebalances.labels(kind).inc()
        self._metrics.events.labels("moved").inc(unfinished)
        for topic, partition in keys:
            self._metrics.lag.labels(topic, partition).set(0)
        self._log.info(f"partitions_{kind}", partitions=sorted(keys), unfinished=unfinished)


class CommitWatchdog:
    """Notices by refused commits that this worker has fallen out of its group. Pure but for the readiness it sets.

    A rebalance refuses commits while it lasts. It ends when all members have joined, or have been removed from the
    group for not joining within ``max_poll_interval_ms``.

    Args:
        kafka: After ``session_timeout_ms`` of refusals the worker is not ready. After ``max_poll_interval_ms`` and a
            session more than the longest rebalance has passed, and it gives up.
        readiness: Set under the name ``commits``.
    """

    NAME = "commits"

    def __init__(self, kafka: KafkaSettings, readiness: Readiness) -> None:
        self._not_ready_after_s = kafka.session_timeout_ms / 1000
        self._gone_after_s = self._not_ready_after_s + kafka.max_poll_interval_ms / 1000
        self._readiness = readiness
        self._refused_since_s: float | None = None

    def accepted(self) -> None:
        """A commit was accepted, or there is nothing to commit."""
        if self._refused_since_s is not None:
            self._refused_since_s = None
            self._readiness.set(self.NAME, None)

    def refused(self, now_s: float) -> None:
        """A commit was refused because the group does not know this member.

        Args:
            now_s: Monotonic seconds.

        Raises:
            Fatal: Refused for longer than any rebalance lasts: only joining again helps.
        """
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        lasted_s = now_s - self._refused_since_s
        if lasted_s > self._gone_after_s:
            raise Fatal(
                f"every commit has been refused for {lasted_s:.0f} s, longer than a rebalance can last "
                "(kafka.max_poll_interval_ms and a session): this worker has fallen out of its group; "
                "start it again, and it joins anew"
            )
        if lasted_s > self._not_ready_after_s:
            self._readiness.set(
                self.NAME,
                f"refused for {lasted_s:.0f} s: the group rebalances, or this worker fell out of it",
            )


def beat(liveness: Liveness, now_s: float, waiting: int) -> None:
    """Record that the polling loop runs; without waiting records, that counts as progress."""
    liveness.polled_at_s = now_s
    if waiting == 0:
        liveness.progressed_at_s = now_s


def _record(record: Any) -> Record:  # noqa: ANN401 (kafka-python's ConsumerRecord has no types)
    return Record(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )


def kafka_offsets(offsets: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Offsets as kafka-python commits them."""
    return {
        TopicPartition(*key): OffsetAndMetadata(offset, "", -1) for key, offset in offsets.items()
    }


def partition_keys(partitions: Collection[TopicPartition]) -> set[Partition]:
    """Partitions as the offset tracker names them."""
    return {(each.topic, each.partition) for each in partitions}


# Lag.


def lags(consumer: KafkaConsumer) -> dict[TopicPartition, int]:
    """Records beyond the position of each assigned partition; 0 until its first fetch, and where it is unknown."""
    ends = _end_offsets(consumer, consumer.paused())
    return {
        partition: _lag(consumer, partition, ends.get(partition, 0))
        for partition in consumer.assignment()
    }


def _end_offsets(
    consumer: KafkaConsumer, paused: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """The ends of paused partitions: these are not fetched, so their high-water mark is not updated."""
    if not paused:
        return {}
    try:
        ends = consumer.end_offsets(list(paused), timeout_ms=END_OFFSETS_TIMEOUT_MS)
    except (KafkaError, KeyError):
        return {}
    return {partition: int(end) for partition, end in ends.items()}


def _lag(consumer: KafkaConsumer, partition: TopicPartition, end_offset: int) -> int:
    # A rebalance on the consumer's own thread may take the partition away between look and call.
    with contextlib.suppress(KeyError, KafkaError):
        high_water = consumer.highwater(partition)
        if high_water is not None:
            position = consumer.position(partition, timeout_ms=0)
            if position is not None:
                # Some brokers answer too low, and none too high: the greater is nearer to the truth.
                return max(int(high_water) - int(position), end_offset - int(position), 0)
    return 0


# Workarounds for kafka-python 3.0.12. Only these look into the client; their tests show whether a later release
# still needs them.


def free_parked(consumer: KafkaConsumer) -> None:
    """Remove an empty batch from the head of the line, so that the next poll returns what was parked.

    When a partition is paused, the client parks the records that it has read. After the resume it returns them
    only if no other batch is in line. A consumed batch stays in line, empty, until another batch replaces it, and
    a partition with parked records is not fetched. So a partition may stand still for ever while its lag grows.
    This happens when partitions are not paused together: one may arrive with a rebalance while others are paused.

    Call it in the polling thread, between polls.
    """
    fetcher = consumer._fetcher  # noqa: SLF001 (nothing public reaches it)
    if not fetcher._next_partition_records:  # noqa: SLF001 (an empty batch is false)
        fetcher._next_partition_records = None  # noqa: SLF001 (as before the first one)


def finish_joining(consumer: KafkaConsumer) -> None:
    """Let the next poll continue a join of the group that the last one began.

    The client decides in each poll whether it has to join. After a change of the topic's partitions, the answer
    turns to no as soon as this member has distributed them. If the poll's time ends at that moment, the join
    continues and no poll takes its result. The member then sends no heartbeats and leaves the group, its commits
    are refused, and it consumes beside the partitions' new owner. Apache Kafka's own client had the same fault
    (KAFKA-9815).

    Call it in the polling thread, between polls.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 (nothing public reaches it)
    if coordinator._join_task is not None:  # noqa: SLF001 (begun, and its result not taken)
        coordinator.request_rejoin()


def unreadable_partition(consumer: KafkaConsumer) -> TopicPartition | None:
    """The partition whose records made ``poll`` fail: its batch is still in line."""
    fetcher = getattr(consumer, "_fetcher", None)
    return getattr(getattr(fetcher, "_next_partition_records", None), "topic_partition", None)
