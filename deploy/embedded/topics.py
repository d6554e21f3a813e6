"""Creates topics on purpose: what a broker makes up by itself has the wrong number of partitions.

In: a bootstrap address and ``{name: partitions}``. Out: the topics exist and have leaders.
Errors: those of kafka-python (``kafka.errors``), and TimeoutError where the broker stays busy.
"""

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
    """Create each topic with its number of partitions and one replica.

    Args:
        bootstrap: ``host:port`` of a broker.
        partitions: From a topic's name to its number of partitions.
        configs: Settings of every topic (``retention.ms`` and the like).
        timeout_s: How long the broker may take.

    Raises:
        TimeoutError: The topics were not there in time; the broker's last answer is in the message.
        KafkaError: The broker refused (a topic exists already, a setting is unknown).
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
                # A broker that just started takes part a moment after it answers.
                _give_up_after(deadline_s, error)
                time.sleep(RETRY_PAUSE_S)
            else:
                return
    finally:
        admin.close()


def _give_up_after(deadline_s: float, error: KafkaError) -> None:
    if time.monotonic() > deadline_s:
        raise TimeoutError(f"the topics could not be created in time: {error}") from error
