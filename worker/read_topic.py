"""A whole topic, from its beginning to the end that it has when it is reached.

In: the settings and a topic. Out: kafka-python's records. Errors: :class:`Fatal` where there is no such topic or it
does not answer; kafka-python's own.
"""

from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from worker.errors import Fatal
from worker.kafka import connection_options
from worker.settings import KafkaSettings
from worker.types import Clock

POLL_TIMEOUT_MS = 500
# A topic whose end is not reached within this time after the last record is given up on.
IDLE_LIMIT_S = 30.0


def read_topic(settings: KafkaSettings, topic: str, clock: Clock) -> Iterator[Any]:
    """Every record of the topic until each partition's end is reached."""
    consumer = KafkaConsumer(
        **connection_options(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=settings.max_message_bytes,
    )
    try:
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise Fatal(f"there is no topic {topic}: create it, or correct kafka.*_topic")
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        idle_since_s = clock()
        while not all(_at_end(consumer, partition) for partition in partitions):
            for records in consumer.poll(timeout_ms=POLL_TIMEOUT_MS).values():
                yield from records
                idle_since_s = clock()
            if clock() - idle_since_s > IDLE_LIMIT_S:
                raise Fatal(f"{topic} does not answer: try again later")
    finally:
        consumer.close(autocommit=False)


def _at_end(consumer: KafkaConsumer, partition: TopicPartition) -> bool:
    """Whether the position has reached the high-water mark, known from the first fetch on."""
    end = consumer.highwater(partition)
    return end is not None and consumer.position(partition, timeout_ms=1000) >= end
