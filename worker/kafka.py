"""Kafka as every client of the worker uses it: connection options, and what the client's errors mean."""

from pathlib import Path

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

from worker.settings import KafkaSettings

# Room for headers and framing beside the largest value.
RECORD_OVERHEAD_BYTES = 64 * 1024


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
