"""Consume: records in, tokens out; polling never stops while there is work.

One thread owns the consumer. It polls, hands records on, pauses its partitions while enough is in flight,
and commits the offsets of what was published. Inference runs elsewhere, so a long batch never delays a
heartbeat. When partitions move, what was taken of them is published and committed first.
Errors: :class:`Fatal` where the broker refuses this worker.
"""

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

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
from worker.metrics import Metrics
from worker.offsets import OffsetTracker, Partition
from worker.settings import FlowSettings, KafkaSettings
from worker.types import AckToken, Clock


def free_parked(consumer: KafkaConsumer) -> None:
    """Take an empty batch out of line, so that the next poll gives back what was parked.

    The client parks what it has read of a partition when that is paused, and gives it back after the resume only
    while no other batch is in line. But a batch that was consumed to its end stays in line, empty, until another
    takes its place, and a partition with parked records is not fetched: it may stand still for ever, not paused,
    its position frozen, its lag growing. It happens where partitions are not all paused together, as when one
    arrives with a rebalance while the others are paused.

    To be called by the thread that polls, between polls.
    """
    fetcher = consumer._fetcher  # noqa: SLF001 (nothing public reaches it)
    if not fetcher._next_partition_records:  # noqa: SLF001 (an empty batch is false)
        fetcher._next_partition_records = None  # noqa: SLF001 (as before the first one)


def finish_joining(consumer: KafkaConsumer) -> None:
    """Let the next poll go on with a join of the group that the last one began.

    The client asks anew in each poll whether it has to join. Where it began because the partitions of the topic
    changed (added, or not yet known to the broker when the group formed), the answer turns to no as soon as this
    member has shared them out. If a poll's time is up just then, the join goes on by itself and nobody takes
    its result: without heartbeats the member falls out of the group, its commits are all refused, and it consumes
    on for ever beside the partitions' new owner. Apache Kafka's own client had the same fault (KAFKA-9815).

    To be called by the thread that polls, between polls.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 (nothing public reaches it)
    if coordinator._join_task is not None:  # noqa: SLF001 (begun, and its result not taken)
        coordinator.request_rejoin()


def unreadable_partition(consumer: KafkaConsumer) -> TopicPartition | None:
    """The partition whose records made ``poll`` fail: its batch is still in line."""
    fetcher = getattr(consumer, "_fetcher", None)
    return getattr(getattr(fetcher, "_next_partition_records", None), "topic_partition", None)


# The polling thread waits for the answer, so not for long.
ASK_TIMEOUT_MS = 500


def lags(consumer: KafkaConsumer) -> dict[TopicPartition, int]:
    """Records beyond the position of each assigned partition; 0 until its first fetch."""
    asked = _asked_ends(consumer, consumer.paused())
    return {
        partition: _lag(consumer, partition, asked.get(partition, 0))
        for partition in consumer.assignment()
    }


def _asked_ends(
    consumer: KafkaConsumer, paused: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """The ends of paused partitions: they are not fetched, so no answer to a fetch tells their high-water mark."""
    if not paused:
        return {}
    try:
        ends = consumer.end_offsets(list(paused), timeout_ms=ASK_TIMEOUT_MS)
    except (KafkaError, KeyError):
        return {}
    return {partition: int(end) for partition, end in ends.items()}


def _lag(consumer: KafkaConsumer, partition: TopicPartition, asked_end: int) -> int:
    # A rebalance on the consumer's own thread may take the partition away between look and call.
    with contextlib.suppress(KeyError, KafkaError):
        end = consumer.highwater(partition)
        position = consumer.position(partition, timeout_ms=0) if end is not None else None
        if position is not None:
            # Some brokers answer too low when asked, and none too high: the greater is the truer.
            return max(int(end) - int(position), asked_end - int(position), 0)
    return 0


NAME = "commits"


class CommitWatchdog:
    """Watches for how long commits have been refused. Pure but for the readiness that it sets.

    Args:
        kafka: The session's timeout, after which this worker is not ready, and the group's longest rebalance,
            a session after which it gives up.
        readiness: Is told of the first, under ``commits``.
    """

    def __init__(self, kafka: KafkaSettings, readiness: Readiness) -> None:
        self._not_ready_after_s = kafka.session_timeout_ms / 1000
        self._gone_after_s = self._not_ready_after_s + kafka.max_poll_interval_ms / 1000
        self._readiness = readiness
        self._refused_since_s: float | None = None

    def accepted(self) -> None:
        """A commit was taken, or there is nothing to commit."""
        if self._refused_since_s is not None:
            self._refused_since_s = None
            self._readiness.set(NAME, None)

    def refused(self, now_s: float) -> None:
        """A commit was refused for want of membership.

        Args:
            now_s: Monotonic seconds.

        Raises:
            Fatal: It has lasted for longer than any rebalance does: only joining anew helps.
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
                NAME,
                f"refused for {lasted_s:.0f} s: the group rebalances, or this worker fell out of it",
            )


# How often a rebalance callback looks whether the last records are published.
REVOKE_CHECK_S = 0.02


class RebalanceListener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
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


POLL_TIMEOUT_MS = 100
COMMIT_TIMEOUT_MS = 10_000
OBSERVE_INTERVAL_S = 0.5
# How long the last commit is tried when all is published: another worker would find its marks.
SETTLE_TIMEOUT_S = 5.0


class Consumer:
    """The polling thread's work.

    Args:
        kafka: Brokers, group and topic.
        topics: All that must exist, whoever reads or writes them.
        flow: Limits of what is in flight, commit interval, drain timeout.
        tracker: The book of offsets.
        intake: Takes a token and its record on; must not block.
        unreadable: Takes a token, its record without key and value, and why it cannot be read.
        liveness: Is told of every turn of the loop.
        readiness: Is told when the group is joined, and when its commits have been refused for long.
        metrics: Lag, assignment, commits.
        clock: Monotonic seconds.
        stop: Set to end the loop; it drains first.
        failed: The error that must end this process, if another thread met one.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Sequence[str],
        flow: FlowSettings,
        tracker: OffsetTracker,
        intake: Callable[[AckToken, Record], None],
        unreadable: Callable[[AckToken, Record, str], None],
        liveness: Liveness,
        readiness: Readiness,
        metrics: Metrics,
        clock: Clock,
        stop: threading.Event,
        failed: Callable[[], BaseException | None],
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._flow = flow
        self._tracker = tracker
        self._intake = intake
        self._unreadable = unreadable
        self._liveness = liveness
        self._readiness = readiness
        self._metrics = metrics
        self._watchdog = CommitWatchdog(kafka, readiness)
        self._clock = clock
        self._stop = stop
        self._failed = failed
        self._log = structlog.get_logger()
        self._leaving = threading.Event()
        self._next_commit_s = 0.0
        self._next_observation_s = 0.0
        self._lag = 0

    def run(self) -> bool:
        """Poll until told to stop, then drain.

        Returns:
            Whether everything that was taken has been published and committed.

        Raises:
            Fatal: The broker refuses this worker, or another thread's error ends it.
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
            listener = RebalanceListener(
                consumer, self._tracker, self._flow.drain_timeout_s, self._leaving,
                self._readiness, self._metrics, self._clock,
            )  # fmt: skip
            self._refuse_missing_topics(consumer)
            consumer.subscribe([self._kafka.input_topic], listener=listener)
        except KafkaError as error:
            raise Fatal(
                f"no broker that lets this worker in at {self._kafka.bootstrap_servers} "
                f"(kafka.bootstrap_servers, security_protocol, sasl_*, ssl_*): {error!r}"
            ) from error
        return consumer

    def _refuse_missing_topics(self, consumer: KafkaConsumer) -> None:
        """A misspelt topic would be waited for without end."""
        if missing := sorted(set(self._topics) - consumer.topics()):
            raise Fatal(
                f"no such topic: {', '.join(missing)}: create it, correct kafka.*_topic, or let "
                "this worker describe it"
            )

    def _raise_failure(self) -> None:
        if (error := self._failed()) is not None:
            raise error

    def _apply_pressure(self, consumer: KafkaConsumer) -> None:
        """Pause when enough is in flight, resume at half of it; polling goes on either way."""
        count, size_bytes = self._tracker.in_flight(), self._tracker.in_flight_bytes
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
        """One poll; while draining nothing is taken on, not even of partitions that a rebalance just brought."""
        self._liveness.turned(self._clock(), self._lag + self._tracker.in_flight())
        free_parked(consumer)
        finish_joining(consumer)
        try:
            polled = consumer.poll(timeout_ms=POLL_TIMEOUT_MS)
        except MEMBER_REFUSED as error:
            raise Fatal(f"the broker refuses this worker (kafka.*): {error!r}") from error
        except CorruptRecordError as error:
            self._step_over(consumer, error, draining=draining)
            return
        except KafkaError as error:
            # kafka-python reconnects by itself; the pause keeps a dead broker's log readable.
            self._log.warning("poll_failed", error=repr(error))
            self._stop.wait(self._flow.retry_backoff_s)
            return
        owned = consumer.assignment()
        # Told here, since kafka-python calls the listener only for what was added or taken away.
        self._metrics.assigned.set(len(owned))
        for partition, records in polled.items():
            # Records of a partition that has moved meanwhile are its new owner's. So is what comes while
            # draining: never taken, it is never committed either.
            for each in records if partition in owned and not draining else ():
                record = _record(each)
                self._intake(self._tracker.take(record), record)
        self._observe(consumer)

    def _step_over(
        self, consumer: KafkaConsumer, error: CorruptRecordError, *, draining: bool
    ) -> None:
        """Go past a record that kafka-python cannot read, and leave a dead letter that says where it is.

        Such are a header whose name is no UTF-8 and a batch that fails its checksum. The client does not
        say which record it was, and left alone it would try for ever within one call of ``poll``.
        """
        partition = unreadable_partition(consumer)
        if partition is None:
            raise Fatal(
                f"a record cannot be read, and the client does not say which: {error}"
            ) from error
        offset = consumer.position(partition)
        if not draining:
            record = Record(partition.topic, partition.partition, offset, 0, None, None, ())
            self._log.error("record_unreadable", partition=partition.partition, offset=offset)
            self._unreadable(self._tracker.take(record), record, str(error))
        consumer.seek(partition, offset + 1)

    def _observe(self, consumer: KafkaConsumer) -> None:
        now_s = self._clock()
        if now_s >= self._next_observation_s:
            self._next_observation_s = now_s + OBSERVE_INTERVAL_S
            found = lags(consumer)
            self._lag = sum(found.values())
            for partition, behind in found.items():
                self._metrics.lag.labels(partition.topic, partition.partition).set(behind)

    def _commit_if_due(self, consumer: KafkaConsumer) -> None:
        if self._clock() >= self._next_commit_s:
            self._commit(consumer)
            self._next_commit_s = self._clock() + self._flow.commit_interval_ms / 1000

    def _commit(self, consumer: KafkaConsumer) -> bool:
        offsets = self._tracker.committable(partition_keys(consumer.assignment()))
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
        self._tracker.committed(offsets)
        self._watchdog.accepted()
        self._metrics.commits.labels("done").inc()
        return True

    def _drain(self, consumer: KafkaConsumer) -> bool:
        """Finish what was taken, and commit it; polling keeps the membership meanwhile."""
        deadline_s = self._clock() + self._flow.drain_timeout_s
        self._log.info("draining", in_flight=self._tracker.in_flight())
        while self._tracker.in_flight() and self._clock() < deadline_s:
            self._keep_membership(consumer)
        # A commit is refused while the group rebalances, as when all workers are stopped at once: polling
        # takes part in that, and the next one is taken.
        deadline_s = min(deadline_s, self._clock() + SETTLE_TIMEOUT_S)
        while not (committed := self._commit(consumer)) and self._clock() < deadline_s:
            self._keep_membership(consumer)
        left = self._tracker.in_flight()
        self._log.info("drained", unfinished=left, committed=committed)
        return committed and not left

    def _keep_membership(self, consumer: KafkaConsumer) -> None:
        """One more poll, which takes nothing on."""
        self._raise_failure()
        with contextlib.suppress(KeyError, IllegalStateError):
            consumer.pause(*consumer.assignment())
        self._poll(consumer, draining=True)


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
