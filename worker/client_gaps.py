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
