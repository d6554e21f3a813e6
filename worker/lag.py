"""Lag: how many records lie beyond what this worker has taken of each of its partitions.

In: the consumer. Out: a number for each partition. Errors: none; what cannot be known now counts as nothing.
"""

import contextlib
from collections.abc import Collection

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

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
