"""How to reach the broker and the cache: addresses, TLS, and who this worker is to them."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Topic = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
SERVER = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]+):\d{1,5}")
TLS_FILES = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")


class Group(BaseModel):
    """Settings that belong together: frozen, and closed to names that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Group):
    """The broker, the group and the topics."""

    bootstrap_servers: str = Field(
        "localhost:9092", min_length=1, description="host:port of brokers, separated by commas"
    )
    group_id: str = Field("synthgate", min_length=1, description="consumer group of these workers")
    group_instance_id: str | None = Field(
        None, description="static membership: a name that is this worker's alone (a pod's name)"
    )
    client_id: str = Field("synthgate-worker", description="name shown in the broker's logs")
    input_topic: Topic = Field("images.uploaded", description="image events come in")
    verdict_topic: Topic = Field("images.verdicts", description="verdicts go out")
    dead_letter_topic: Topic = Field(
        "images.uploaded.DLT", description="events that can never work go here"
    )
    shadow_topic: Topic = Field(
        "images.verdicts.shadow", description="verdicts of the shadow go here (engine.shadow)"
    )
    auto_offset_reset: Literal["earliest", "latest"] = Field(
        "earliest", description="where a group without committed offsets starts"
    )
    session_timeout_ms: PositiveInt = Field(
        45_000, description="the broker gives a silent worker's partitions away after this"
    )
    heartbeat_interval_ms: PositiveInt = Field(3_000, description="at most a third of the session")
    max_poll_interval_ms: PositiveInt = Field(
        300_000, description="a worker that has not polled for this long leaves the group"
    )
    metadata_max_age_ms: PositiveInt = Field(
        60_000, description="partitions added to a topic are noticed after at most this"
    )
    max_poll_records: PositiveInt = Field(64, description="records taken in one poll")
    max_message_bytes: PositiveInt = Field(
        25 * 1024 * 1024, description="largest record read or written (dead letters carry it back)"
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "lz4", description="codec of verdicts and dead letters"
    )
    delivery_timeout_ms: PositiveInt = Field(
        30_000, description="a publish not acknowledged by then is tried again from the start"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how to speak to the brokers"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="needed by SASL_PLAINTEXT and SASL_SSL"
    )
    sasl_username: str | None = Field(None, description="SASL user")
    sasl_password: SecretStr | None = Field(None, description="SASL password (secret)")
    ssl_ca_file: Path | None = Field(None, description="PEM file of the authority to trust")
    ssl_cert_file: Path | None = Field(None, description="PEM file of this client's certificate")
    ssl_key_file: Path | None = Field(None, description="PEM file of this client's key")
    ssl_key_password: SecretStr | None = Field(None, description="password of the key (secret)")
    ssl_check_hostname: bool = Field(default=True, description="compare certificate and host name")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for server in self.bootstrap_servers.split(","):
            if not SERVER.fullmatch(server.strip()):
                raise ValueError(
                    f"bootstrap_servers has {server.strip()!r}, which is no host:port: write "
                    "broker-1:9092,broker-2:9092"
                )
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            raise ValueError(
                f"heartbeat_interval_ms ({self.heartbeat_interval_ms}) must be at most a third of "
                f"session_timeout_ms ({self.session_timeout_ms}): lower it or raise the session"
            )
        topics = (self.input_topic, self.verdict_topic, self.dead_letter_topic, self.shadow_topic)
        if len(set(topics)) < len(topics):
            raise ValueError(
                "input_topic, verdict_topic, dead_letter_topic and shadow_topic must differ: a "
                "worker that writes to its own input would feed itself for ever, and a shadow's "
                "verdict must not be taken for one that decides"
            )
        if self.security_protocol.startswith("SASL"):
            self._require_sasl()
        elif self.sasl_mechanism or self.sasl_username or self.sasl_password:
            raise ValueError(
                f"SASL credentials are set but security_protocol is {self.security_protocol}: "
                "set it to SASL_SSL (or SASL_PLAINTEXT), or remove the sasl_* settings"
            )
        self._check_tls()
        return self

    def _check_tls(self) -> None:
        given = [name for name in TLS_FILES if getattr(self, name) is not None]
        if given and not self.security_protocol.endswith("SSL"):
            raise ValueError(
                f"{', '.join(given)} is set but security_protocol is {self.security_protocol}: "
                "set it to SSL or SASL_SSL, or remove the ssl_* settings"
            )
        if self.ssl_key_file is not None and self.ssl_cert_file is None:
            raise ValueError("ssl_key_file needs ssl_cert_file as well")
        require_files(self, *TLS_FILES)

    def _require_sasl(self) -> None:
        missing = [
            name
            for name in ("sasl_mechanism", "sasl_username", "sasl_password")
            if getattr(self, name) is None
        ]
        if missing:
            raise ValueError(f"{self.security_protocol} needs {', '.join(missing)} as well")


class RedisSettings(Group):
    """The cache that answers "what was decided about this content?"."""

    url: str = Field(
        "redis://localhost:6379/0", description="redis://host:port/db, rediss:// for TLS"
    )
    username: str | None = Field(None, description="ACL user")
    password: SecretStr | None = Field(None, description="ACL password (secret)")
    tls_ca_file: Path | None = Field(None, description="PEM file of the authority to trust")
    tls_cert_file: Path | None = Field(None, description="PEM file of this client's certificate")
    tls_key_file: Path | None = Field(None, description="PEM file of this client's key")
    timeout_s: PositiveFloat = Field(5.0, description="one command or connection attempt")
    key_prefix: str = Field("synthgate", min_length=1, description="first part of every key")
    verdict_ttl_s: PositiveInt = Field(30 * 86_400, description="how long a verdict is kept")
    score_ttl_s: PositiveInt = Field(7 * 86_400, description="how long a score is cached")
    published_ttl_s: PositiveInt = Field(
        7 * 86_400, description="how long a redelivered event is recognised as published"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        scheme = self._checked_url()
        files = ("tls_ca_file", "tls_cert_file", "tls_key_file")
        if scheme != "rediss" and any(getattr(self, name) for name in files):
            raise ValueError("tls_* files are set but url is not rediss://: change its scheme")
        if self.tls_key_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_key_file needs tls_cert_file as well")
        require_files(self, *files)
        return self

    def _checked_url(self) -> str:
        """The scheme; no message shows the URL, which may hold a password."""
        try:
            parts = urlsplit(self.url)
            _ = parts.port  # raises where it is no number
        except ValueError as error:
            raise ValueError("url is malformed: write redis://host:port/db") from error
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("url must start with redis://, rediss:// (TLS) or unix://")
        if parts.password or "password" in parse_qs(parts.query):
            raise ValueError(
                "url holds a password, which logs would show: remove it and set password "
                "(SYNTHGATE_REDIS__PASSWORD or the secret file redis__password)"
            )
        return parts.scheme


def require_files(group: BaseModel, *names: str) -> None:
    """Refuse files that do not exist, by the names of their settings."""
    for name in names:
        path = getattr(group, name)
        if path is not None and not path.is_file():
            raise ValueError(f"{name} {path} does not exist: mount or correct it")
