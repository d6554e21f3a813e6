"""A resumed partition goes on, whatever the others did meanwhile, and a join that was begun is ended."""

import time
from collections import Counter
from collections.abc import Callable

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from tests.support.events import Outgoing, send
from tests.support.services import MakeTopics
from worker.consumer import finish_joining, free_parked

RECORDS = 100
POLLS_AT_MOST = 300


def test_a_partition_that_was_paused_alone_goes_on_after_its_resume(
    bootstrap: str, topics: MakeTopics
) -> None:
    """Read in part, paused while another is read to its end, and resumed: every record comes, once."""
    (topic,) = topics("parked", partitions=2)
    send(bootstrap, topic, [Outgoing(None, b"x", partition=at % 2) for at in range(2 * RECORDS)])
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", max_poll_records=10
    )
    consumer.assign([TopicPartition(topic, 0), TopicPartition(topic, 1)])
    offsets: list[tuple[int, int]] = []

    def read_until(done: Callable[[Counter[int]], bool]) -> None:
        for _ in range(POLLS_AT_MOST):
            counts = Counter(partition for partition, _ in offsets)
            if done(counts):
                return
            free_parked(consumer)
            for records in consumer.poll(timeout_ms=100).values():
                offsets.extend((each.partition, each.offset) for each in records)
        pytest.fail(f"a partition stands still: {counts}")

    try:
        read_until(lambda counts: counts.total() > 0)
        begun = offsets[0][0]
        consumer.pause(TopicPartition(topic, begun))
        read_until(lambda counts: counts[1 - begun] == RECORDS)
        assert len([number for number, _ in offsets if number == begun]) < RECORDS
        consumer.resume(TopicPartition(topic, begun))
        read_until(lambda counts: counts[begun] == RECORDS)
    finally:
        consumer.close(autocommit=False)
    assert sorted(offsets) == [(number, at) for number in (0, 1) for at in range(RECORDS)]


@pytest.mark.kafka_only(reason="the embedded broker cannot add partitions to a topic")
@pytest.mark.parametrize("poll_ms", [5, 20])
def test_a_join_for_added_partitions_ends_though_a_poll_is_shorter(
    bootstrap: str, topics: MakeTopics, poll_ms: int
) -> None:
    """Polls that end at any point of it: the member stays one, and its commit is taken."""
    (topic,) = topics("grown", partitions=1)
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=topic,
        metadata_max_age_ms=300,
        enable_auto_commit=False,
        partition_assignment_strategy=[CooperativeStickyAssignor],
    )

    def poll_until_owning(partitions: int) -> None:
        # Without a pause: what a join gives between polls is not taken either, and it begins anew.
        deadline_s = time.monotonic() + 20
        while len(consumer.assignment()) != partitions:
            assert time.monotonic() < deadline_s, f"never owns {partitions}"
            finish_joining(consumer)
            consumer.poll(timeout_ms=poll_ms)

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        poll_until_owning(1)
        admin.create_partitions({topic: 4})
        poll_until_owning(4)
        offsets = {each: OffsetAndMetadata(0, "", -1) for each in consumer.assignment()}
        consumer.commit(offsets, timeout_ms=5_000)
    finally:
        admin.close()
        consumer.close(autocommit=False)
