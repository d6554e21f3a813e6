"""Every rule of the settings has a message that says what to do."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from worker.settings import (
    REFERENCE_BUNDLE,
    BatchSettings,
    DecodeSettings,
    EngineSettings,
    FetchSettings,
    FlowSettings,
    HealthSettings,
    KafkaSettings,
    RedisSettings,
    Settings,
)

SASL = {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "p"}


def complaint(group: type[BaseModel], values: dict[str, object]) -> str:
    """The one complaint about these values."""
    with pytest.raises(ValidationError) as caught:
        group.model_validate(values)
    (found,) = caught.value.errors()
    return found["msg"].removeprefix("Value error, ")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"heartbeat_interval_ms": 3000, "session_timeout_ms": 8999},
            "heartbeat_interval_ms (3000) must be at most a third of session_timeout_ms (8999)",
        ),
        (
            {"verdict_topic": "images.uploaded"},
            "must differ: a worker that writes to its own input",
        ),
        ({"dead_letter_topic": "images.verdicts"}, "must differ"),
        ({"input_topic": "a b"}, "String should match pattern"),
        ({"input_topic": "x" * 250}, "String should match pattern"),
        ({"bootstrap_servers": ""}, "String should have at least 1 character"),
        ({"bootstrap_servers": "broker"}, "has 'broker', which is no host:port"),
        ({"bootstrap_servers": "a:1,,b:2"}, "has '', which is no host:port"),
        ({"bootstrap_servers": "kafka://a:1"}, "has 'kafka://a:1', which is no host:port"),
        (SASL, "SASL credentials are set but security_protocol is PLAINTEXT: set it to SASL_SSL"),
        ({"security_protocol": "SASL_SSL"}, "needs sasl_mechanism, sasl_username, sasl_password"),
        (
            {"security_protocol": "SASL_PLAINTEXT"} | SASL | {"sasl_username": None},
            "SASL_PLAINTEXT needs sasl_username as well",
        ),
        ({"ssl_ca_file": "/ca"}, "ssl_ca_file is set but security_protocol is PLAINTEXT"),
        (
            {"security_protocol": "SSL", "ssl_key_file": "/key"},
            "ssl_key_file needs ssl_cert_file as well",
        ),
        (
            {"security_protocol": "SSL", "ssl_ca_file": "/no/ca.pem"},
            "ssl_ca_file /no/ca.pem does not exist: mount or correct it",
        ),
        ({"compression": "brotli"}, "Input should be 'none', 'gzip', 'snappy', 'lz4' or 'zstd'"),
        ({"max_poll_records": 0}, "Input should be greater than 0"),
    ],
)
def test_kafka(values: dict[str, object], told: str) -> None:
    """Groups, topics, TLS and SASL."""
    assert told in complaint(KafkaSettings, values)


@pytest.mark.parametrize("servers", ["a:1", "a:1, b-2.example:9093", "[::1]:9092", "10.0.0.1:1"])
def test_servers_are_hosts_with_ports(servers: str) -> None:
    """Names and addresses of both kinds."""
    assert KafkaSettings(bootstrap_servers=servers).bootstrap_servers == servers


def test_sasl_over_tls_with_files(tmp_path: Path) -> None:
    """A complete set passes."""
    (tmp_path / "ca.pem").write_text("PEM")
    settings = {"security_protocol": "SASL_SSL", "ssl_ca_file": tmp_path / "ca.pem"} | SASL
    assert KafkaSettings.model_validate(settings).ssl_ca_file == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"url": "cache:6379"}, "url must start with redis://, rediss:// (TLS) or unix://"),
        ({"url": "redis://cache:port"}, "url is malformed: write redis://host:port/db"),
        ({"url": "redis://[cache"}, "url is malformed"),
        ({"url": "redis://:pw@cache"}, "remove it and set password (SYNTHGATE_REDIS__PASSWORD"),
        ({"url": "redis://cache?db=1&password=pw"}, "url holds a password"),
        ({"tls_ca_file": "/ca"}, "url is not rediss://: change its scheme"),
        ({"tls_key_file": "/key"}, "url is not rediss://"),
        ({"url": "rediss://c", "tls_ca_file": "/no/ca"}, "tls_ca_file /no/ca does not exist"),
        ({"url": "rediss://c", "tls_key_file": "/key"}, "tls_key_file needs tls_cert_file as well"),
        ({"key_prefix": ""}, "String should have at least 1 character"),
        ({"timeout_s": 0}, "Input should be greater than 0"),
    ],
)
def test_redis(values: dict[str, object], told: str) -> None:
    """The address, its password, and TLS."""
    assert told in complaint(RedisSettings, values)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"schemes": "https,ftp"}, "unknown scheme ['ftp']: use https, http, s3 or file"),
        ({"schemes": ("file",)}, "file: URIs are allowed but file_root is not set"),
        ({"file_root": "/no/where"}, "file_root /no/where is not a directory"),
        ({"s3_access_key_id": "x"}, "s3_access_key_id and s3_secret_access_key go together"),
        ({"s3_secret_access_key": "x"}, "go together: set both"),
        ({"attempts": 0}, "Input should be greater than 0"),
    ],
)
def test_fetch(values: dict[str, object], told: str) -> None:
    """What events may name."""
    assert told in complaint(FetchSettings, values)


STORE = {"store": "/releases", "cache_dir": "/cache"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (STORE | {"bundle": "/bundle"}, "bundle and store are both set"),
        ({"store": "/releases"}, "store needs cache_dir: name a directory"),
        (STORE | {"store": "gs://bucket/x"}, "store must be a directory or s3://BUCKET/PREFIX"),
        (STORE | {"store": ""}, "String should have at least 1 character"),
        (STORE | {"channel": "beta"}, "Input should be 'stable', 'canary' or 'shadow'"),
        (STORE | {"canary_share": 1.1}, "Input should be less than or equal to 1"),
        (STORE | {"canary_share": 0.1, "channel": "canary"}, "leave out canary_share"),
        (STORE | {"shadow": True, "channel": "shadow"}, "leave out shadow"),
        ({"canary_share": 0.1}, "canary_share and shadow need store"),
        ({"shadow": True}, "canary_share and shadow need store"),
        ({"channel": "canary"}, "cache_dir and channel mean nothing without store"),
        ({"cache_dir": "/cache"}, "cache_dir and channel mean nothing without store"),
    ],
)
def test_engine(values: dict[str, object], told: str) -> None:
    """One bundle or one store is in force, never both, and nothing that would silently do nothing."""
    assert told in complaint(EngineSettings, values)


def test_exactly_one_of_bundle_and_store_is_in_force() -> None:
    """Without either it is the bundle that ships."""
    assert EngineSettings().fixed_bundle == REFERENCE_BUNDLE
    assert EngineSettings(bundle=Path("/mine")).fixed_bundle == Path("/mine")
    for store in ("/releases", "s3://bucket/prefix"):
        followed = EngineSettings(store=store, cache_dir=Path("/cache"))
        assert followed.fixed_bundle is None


def test_a_shadow_needs_its_topic_and_a_worker_that_enforces() -> None:
    """Its topic is among those that must exist; a worker that is a shadow itself has none beside it."""
    engine: dict[str, object] = STORE | {"shadow": True}
    assert "images.verdicts.shadow" not in Settings().topics
    assert Settings.model_validate({"engine": engine}).topics[-1] == "images.verdicts.shadow"
    told = complaint(Settings, {"engine": engine, "decide": {"mode": "shadow"}})
    assert "decide.mode is shadow, so all of this worker is one" in told
    assert "must differ" in complaint(KafkaSettings, {"shadow_topic": "images.verdicts"})


def test_flow_batch_and_health() -> None:
    """Numbers that could not work together, or at all."""
    assert "raise the latter" in complaint(FlowSettings, {"retry_backoff_s": 6.0})
    assert complaint(BatchSettings, {"max_images": 0}) == "Input should be greater than 0"
    assert complaint(DecodeSettings, {"max_pixels": -1}) == "Input should be greater than 0"
    assert "less than or equal to 65535" in complaint(HealthSettings, {"port": 65536})
    together: dict[str, object] = {"batch": {"max_images": 300}, "flow": {"max_in_flight": 256}}
    assert "a batch could never fill" in complaint(Settings, together)


def test_every_setting_says_what_it_is() -> None:
    """The documentation is made of these."""
    for name, group in Settings.model_fields.items():
        assert isinstance(group.annotation, type), name
        assert (group.annotation.__doc__ or "").strip()
        for field in group.annotation.model_fields.values():
            assert field.description
