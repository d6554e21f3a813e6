"""A resumed partition goes on, whatever the others did meanwhile."""

from collections import Counter
from collections.abc import Callable

import pytest
from kafka import KafkaConsumer, TopicPartition

from tests.support.events import Outgoing, send
from tests.support.services import MakeTopics
from worker.client_gaps import free_parked

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
