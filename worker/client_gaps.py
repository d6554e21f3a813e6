"""What kafka-python (3.0.12) leaves undone, or tells nobody: the only place that looks into it.

Errors: none; a release of the client that is made otherwise shows in the tests of these functions.
"""

from kafka import KafkaConsumer, TopicPartition


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


def unreadable_partition(consumer: KafkaConsumer) -> TopicPartition | None:
    """The partition whose records made ``poll`` fail: its batch is still in line."""
    fetcher = getattr(consumer, "_fetcher", None)
    return getattr(getattr(fetcher, "_next_partition_records", None), "topic_partition", None)
