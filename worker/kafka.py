"""Kafka as every client of the worker uses it: connection options, whole topics, and what errors mean."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    CommitFailedError,
    FencedInstanceIdError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    InvalidTopicError,
    RebalanceInProgressError,
    SaslAuthenticationFailedError,
    UnknownMemberIdError,
    UnsupportedVersionError,
)
from pydantic import SecretStr

from worker.errors import Fatal
from worker.settings import KafkaSettings

# Room for headers and framing beside the largest value.
RECORD_OVERHEAD_BYTES = 64 * 1024
READ_POLL_TIMEOUT_MS = 500
# Reading a topic fails if its end is not reached within this time after the last record.
READ_IDLE_LIMIT_S = 30.0


def connection_options(settings: KafkaSettings) -> dict[str, object]:
    """Address, TLS and SASL as keyword arguments of a kafka-python client."""
    options: dict[str, object] = {
        "bootstrap_servers": [part.strip() for part in settings.bootstrap_servers.split(",")],
        "client_id": settings.client_id,
        "security_protocol": settings.security_protocol,
        # The default maximum of 30 s would leave a worker idle long after its broker is back.
        "reconnect_backoff_max_ms": 2_000,
        # How long a client that starts looks for a broker before it says that there is none.
        "bootstrap_timeout_ms": 10_000,
    }
    if settings.security_protocol.endswith("SSL"):
        options |= {
            "ssl_check_hostname": settings.ssl_check_hostname,
            "ssl_cafile": _path(settings.ssl_ca_file),
            "ssl_certfile": _path(settings.ssl_cert_file),
            "ssl_keyfile": _path(settings.ssl_key_file),
            "ssl_password": _secret(settings.ssl_key_password),
        }
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": _secret(settings.sasl_password),
        }
    return options


def producer_options(settings: KafkaSettings) -> dict[str, object]:
    """An idempotent producer whose every send is acknowledged by all in-sync replicas."""
    return connection_options(settings) | {
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": None if settings.compression == "none" else settings.compression,
        "delivery_timeout_ms": settings.delivery_timeout_ms,
        "request_timeout_ms": min(settings.delivery_timeout_ms, 10_000),
        "max_block_ms": min(settings.delivery_timeout_ms, 10_000),
        "max_request_size": settings.max_message_bytes + RECORD_OVERHEAD_BYTES,
        "allow_auto_create_topics": False,
    }


def consumer_options(settings: KafkaSettings) -> dict[str, object]:
    """A member of the consumer group that commits by hand."""
    return connection_options(settings) | {
        "group_id": settings.group_id,
        "group_instance_id": settings.group_instance_id,
        "enable_auto_commit": False,
        "auto_offset_reset": settings.auto_offset_reset,
        "session_timeout_ms": settings.session_timeout_ms,
        "heartbeat_interval_ms": settings.heartbeat_interval_ms,
        "max_poll_interval_ms": settings.max_poll_interval_ms,
        "metadata_max_age_ms": settings.metadata_max_age_ms,
        "max_poll_records": settings.max_poll_records,
        "max_partition_fetch_bytes": settings.max_message_bytes,
        "allow_auto_create_topics": False,
    }


def read_topic(settings: KafkaSettings, topic: str, clock: Callable[[], float]) -> Iterator[Any]:
    """Every record of a topic, from its beginning to the end that it has when it is reached.

    Args:
        settings: The brokers.
        topic: The topic.
        clock: Monotonic seconds.

    Yields:
        kafka-python's records.

    Raises:
        Fatal: The topic does not exist or its end is not reached.
        KafkaError: The brokers do not answer or refuse.
    """
    consumer = KafkaConsumer(
        **connection_options(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=settings.max_message_bytes,
    )
    try:
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise Fatal(f"the topic {topic} does not exist: create it, or correct kafka.*_topic")
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        idle_since_s = clock()
        while not all(_at_end(consumer, partition) for partition in partitions):
            for records in consumer.poll(timeout_ms=READ_POLL_TIMEOUT_MS).values():
                yield from records
                idle_since_s = clock()
            if clock() - idle_since_s > READ_IDLE_LIMIT_S:
                raise Fatal(f"{topic} does not answer: try again later")
    finally:
        consumer.close(autocommit=False)


def _at_end(consumer: KafkaConsumer, partition: TopicPartition) -> bool:
    """Whether the position has reached the high-water mark, which the first fetch makes known."""
    end = consumer.highwater(partition)
    return end is not None and consumer.position(partition, timeout_ms=1000) >= end


def _path(path: Path | None) -> str | None:
    return str(path) if path is not None else None


def _secret(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


# The broker will not have this client: trying again changes nothing.
REFUSED = (
    AuthorizationError,
    InvalidTopicError,
    SaslAuthenticationFailedError,
    UnsupportedVersionError,
)
# The same for a member of a consumer group.
MEMBER_REFUSED = (
    *REFUSED,
    FencedInstanceIdError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
)
# Not this member's any more: whoever has the partition now will see the records again.
LOST = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)
