"""Settings become kafka-python's options, and every option is one that it knows."""

from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer

from worker.kafka import connection_options, consumer_options, producer_options
from worker.settings import KafkaSettings


@pytest.fixture
def secured(tmp_path: Path) -> KafkaSettings:
    """TLS with a client certificate, and SASL."""
    for name in ("ca", "cert", "key"):
        (tmp_path / f"{name}.pem").write_text("PEM")
    return KafkaSettings.model_validate(
        {
            "bootstrap_servers": "a:9092, b:9093",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": "worker",
            "sasl_password": "hidden",
            "ssl_ca_file": tmp_path / "ca.pem",
            "ssl_cert_file": tmp_path / "cert.pem",
            "ssl_key_file": tmp_path / "key.pem",
            "ssl_key_password": "locked",
        }
    )


def test_every_option_is_one_of_the_client(secured: KafkaSettings) -> None:
    """kafka-python refuses names it does not know only when it connects."""
    for settings in (KafkaSettings(), secured):
        assert set(consumer_options(settings)) <= set(KafkaConsumer.DEFAULT_CONFIG)
        assert set(producer_options(settings)) <= set(KafkaProducer.DEFAULT_CONFIG)


def test_security_is_passed_on_in_full(secured: KafkaSettings, tmp_path: Path) -> None:
    """Secrets as text, files as paths, servers one by one."""
    options = connection_options(secured)
    assert options["bootstrap_servers"] == ["a:9092", "b:9093"]
    assert options["sasl_plain_password"] == "hidden"
    assert (options["ssl_password"], options["ssl_keyfile"]) == ("locked", f"{tmp_path}/key.pem")
    assert options["ssl_check_hostname"] is True


def test_plain_text_has_no_security_options() -> None:
    """Nothing that could suggest otherwise."""
    assert not [
        name for name in connection_options(KafkaSettings()) if name[:4] in ("ssl_", "sasl")
    ]


def test_nothing_is_committed_or_acknowledged_by_itself() -> None:
    """The worker commits by hand, and every send waits for all replicas, once."""
    consumer, producer = consumer_options(KafkaSettings()), producer_options(KafkaSettings())
    assert consumer["enable_auto_commit"] is False
    assert (producer["acks"], producer["enable_idempotence"]) == ("all", True)
    assert producer_options(KafkaSettings(compression="none"))["compression_type"] is None


def test_a_dead_letter_may_be_as_large_as_its_record() -> None:
    """With room for the headers that are added."""
    settings = KafkaSettings(max_message_bytes=1000)
    assert producer_options(settings)["max_request_size"] > 1000  # type: ignore[operator]
    assert consumer_options(settings)["max_partition_fetch_bytes"] == 1000
