"""TLS, passwords and access rights of broker and cache: really connected, or clearly refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion
from redis import Redis

from deploy.embedded.services import Server, free_port, valkey_cache
from deploy.embedded.topics import create_topics
from deploy.kafka.broker import kafka_broker
from tests.support.certificates import Certificates, make_certificates
from tests.support.events import binary, picture
from tests.support.lane import Lane, open_lane
from tests.support.services import BrokerKind
from tests.support.tls_front import TlsFront
from tests.support.worker_fixtures import STEMS

PASSWORD = "a password of Redis"
USER = "moderator"
USER_PASSWORD = "another password"
SASL_PASSWORD = "a password of Kafka"
# All that the worker does; the keys are those below its prefix.
COMMANDS = ("+ping", "+get", "+set", "+mget", "+eval", "+evalsha", "+script", "+client|setinfo")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority that signed one certificate."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def locked_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A cache that wants a password, with a user that may do no more than a worker needs."""
    with valkey_cache(tmp_path_factory.mktemp("locked")) as server:
        with Redis(port=server.port) as client:
            client.execute_command(
                *("ACL", "SETUSER", USER, "on", f">{USER_PASSWORD}", "~lane-*", *COMMANDS)
            )
            client.execute_command(
                *("ACL", "SETUSER", "reader", "on", f">{USER_PASSWORD}", "~*", "+ping", "+get")
            )
            client.config_set("requirepass", PASSWORD)
        yield server


@pytest.mark.parametrize("password", [None, "guessed-in-vain"])
def test_a_wrong_password_of_redis_is_fatal_at_the_start(
    lane: Lane, locked_cache: Server, password: str | None
) -> None:
    """No event is needed to find out: status 1, which settings, and no password in the log."""
    worker = lane.launch(redis__url=f"redis://{locked_cache.address}/0", redis__password=password)
    assert worker.wait() == 1
    (failed,) = worker.log("worker_failed")
    assert "redis.password" in failed["error"]
    assert "guessed-in-vain" not in worker.log_text()


def test_rights_that_are_missing_are_fatal_and_nothing_is_lost(
    lane: Lane, locked_cache: Server
) -> None:
    """A user that may read but not write ends the worker at the first verdict, uncommitted."""
    refused = lane.launch(
        redis__url=f"redis://{locked_cache.address}/0",
        redis__username="reader",
        redis__password=USER_PASSWORD,
    )
    lane.send(binary("kept", picture(1)))
    assert refused.wait() == 1
    assert "redis.username" in refused.log("worker_failed")[0]["error"]
    assert not any(lane.committed().values())
    lane.start()
    with lane.verdicts() as verdicts:
        verdicts.wait_for_keys(["kept"])


def test_redis_with_tls_a_user_of_its_own_and_a_secret_file(
    lane: Lane, locked_cache: Server, certificates: Certificates, tmp_path: Path
) -> None:
    """Encrypted both ways with certificates that are checked; the few rights of the user are enough."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "redis__password").write_text(USER_PASSWORD + "\n")
    with TlsFront(locked_cache.port, certificates) as front:
        worker = lane.start(
            redis__url=f"rediss://127.0.0.1:{front.port}/0",
            redis__username=USER,
            redis__tls_ca_file=certificates.authority,
            redis__tls_cert_file=certificates.certificate,
            redis__tls_key_file=certificates.key,
            secrets_dir=secrets,
        )
        lane.send(binary("secret", picture(2)))
        with lane.verdicts() as verdicts:
            verdicts.wait_for_keys(["secret"])
        assert worker.drain() == 0
    with Redis(port=locked_cache.port, password=PASSWORD) as client:
        assert client.exists(f"{lane.name}:verdict:secret")
    assert USER_PASSWORD not in worker.log_text()


def test_redis_of_an_unknown_authority_is_not_spoken_to(
    lane: Lane, locked_cache: Server, certificates: Certificates, tmp_path: Path
) -> None:
    """A certificate that another authority signed: never ready, and the reason is told."""
    other = make_certificates(tmp_path / "other")
    with TlsFront(locked_cache.port, certificates) as front:
        worker = lane.launch(
            redis__url=f"rediss://127.0.0.1:{front.port}/0",
            redis__password=PASSWORD,
            redis__tls_ca_file=other.authority,
        )
        worker.wait_owning(3)
        assert not worker.is_ready
        assert "certificate verify failed" in worker.probe("readyz")[1].lower()


@pytest.fixture(scope="module")
def secure_broker(
    broker_kind: BrokerKind, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[tuple[Server, int]]:
    """Apache Kafka with one more listener, SASL over TLS; the broker and that listener's port."""
    assert broker_kind is BrokerKind.KAFKA
    port, secure_port, controller_port = (free_port() for _ in range(3))
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
    prefix = "listener.name.sasl_ssl"
    properties = {
        "listeners": f"PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure_port},"
        f"CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure_port}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        f"{prefix}.plain.sasl.jaas.config": f'{plain} required user_{USER}="{SASL_PASSWORD}";',
        f"{prefix}.scram-sha-512.sasl.jaas.config": f"{scram} required;",
        "group.min.session.timeout.ms": "1000",
        f"{prefix}.ssl.keystore.type": "PEM",
        f"{prefix}.ssl.keystore.location": str(certificates.both),
    }
    directory = tmp_path_factory.mktemp("secure")
    with kafka_broker(directory, port=port, properties=properties) as server:
        create_topics(server.address, dict.fromkeys(STEMS, 3))
        scram_user = UserScramCredentialUpsertion(USER, ScramMechanism.SCRAM_SHA_512, SASL_PASSWORD)
        admin = KafkaAdminClient(bootstrap_servers=server.address)
        try:
            admin.alter_user_scram_credentials([scram_user])
        finally:
            admin.close()
        yield server, secure_port


@pytest.mark.kafka_only(reason="the embedded broker has neither TLS nor SASL")
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_kafka_with_sasl_over_tls(
    secure_broker: tuple[Server, int],
    certificates: Certificates,
    cache: Server,
    bundle: Path,
    tmp_path: Path,
    mechanism: str,
) -> None:
    """Consumer and producer log in over a checked certificate; every client of the worker does."""
    server, port = secure_broker
    secure = secured(port, certificates) | {"kafka__sasl_mechanism": mechanism}
    url = f"redis://{cache.address}/0"
    with open_lane(server.address, url, bundle, tmp_path, STEMS) as lane:
        lane.name = f"lane-{mechanism}"
        worker = lane.start(**secure)
        lane.send(binary(f"over-{mechanism}", picture(3)))
        with lane.verdicts() as verdicts:
            verdicts.wait_for_keys([f"over-{mechanism}"])
        assert worker.drain() == 0
        assert SASL_PASSWORD not in worker.log_text()


@pytest.mark.kafka_only(reason="the embedded broker has neither TLS nor SASL")
@pytest.mark.parametrize("wrong", ["kafka__sasl_password", "kafka__ssl_ca_file"])
def test_kafka_that_refuses_or_is_a_stranger_ends_the_worker(
    secure_broker: tuple[Server, int],
    certificates: Certificates,
    cache: Server,
    bundle: Path,
    tmp_path: Path,
    wrong: str,
) -> None:
    """A wrong password, or a broker whose certificate is unknown: status 1, and what to look at."""
    server, port = secure_broker
    replacement = {
        "kafka__sasl_password": "wrong",
        "kafka__ssl_ca_file": make_certificates(tmp_path / "other").authority,
    }
    secure = secured(port, certificates) | {wrong: replacement[wrong]}
    url = f"redis://{cache.address}/0"
    with open_lane(server.address, url, bundle, tmp_path, STEMS) as lane:
        worker = lane.launch(**secure)
        assert worker.wait(60) == 1
        (failed,) = worker.log("worker_failed")
        assert "sasl_*, ssl_*" in failed["error"]
        assert SASL_PASSWORD not in worker.log_text()


def secured(port: int, certificates: Certificates) -> dict[str, object]:
    """Settings of a worker that logs in over TLS."""
    return {
        "kafka__bootstrap_servers": f"127.0.0.1:{port}",
        "kafka__security_protocol": "SASL_SSL",
        "kafka__sasl_mechanism": "PLAIN",
        "kafka__sasl_username": USER,
        "kafka__sasl_password": SASL_PASSWORD,
        "kafka__ssl_ca_file": certificates.authority,
    }
