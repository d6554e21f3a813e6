"""Creates topics: those that a broker creates on first use have the wrong number of partitions."""

import time
from collections.abc import Mapping

from kafka.admin import KafkaAdminClient
from kafka.errors import InvalidReplicationFactorError, KafkaError

RETRY_PAUSE_S = 0.1


def create_topics(
    bootstrap: str,
    partitions: Mapping[str, int],
    *,
    configs: Mapping[str, str] | None = None,
    timeout_s: float = 10.0,
) -> None:
    """Create topics with one replica and wait until they have leaders.

    Args:
        bootstrap: ``host:port`` of a broker.
        partitions: The number of partitions of each topic.
        configs: Topic settings for all of them, such as ``retention.ms``.
        timeout_s: Time until the topics must exist.

    Raises:
        TimeoutError: The broker did not create the topics in time; the message holds its last answer.
        KafkaError: The broker refused: a topic exists already, or a setting is unknown.
    """
    specs = {
        name: {"num_partitions": count, "replication_factor": 1, "configs": dict(configs or {})}
        for name, count in partitions.items()
    }
    deadline_s = time.monotonic() + timeout_s
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        while True:
            try:
                admin.create_topics(specs, wait_for_metadata=True)
            except InvalidReplicationFactorError as error:
                # A new broker joins the cluster a moment after it answers.
                _give_up_after(deadline_s, error)
                time.sleep(RETRY_PAUSE_S)
            else:
                return
    finally:
        admin.close()


def _give_up_after(deadline_s: float, error: KafkaError) -> None:
    if time.monotonic() > deadline_s:
        raise TimeoutError(f"the topics could not be created in time: {error}") from error
