"""Every setting of the worker: the only place that reads the environment.

In: the environment (``SYNTHGATE_KAFKA__BOOTSTRAP_SERVERS=...``), a TOML file (``[kafka]``), and a
directory of secret files (``SYNTHGATE_SECRETS_DIR``, one file a setting: ``kafka__sasl_password``).
The environment wins over secret files, those over the TOML file, that over the defaults.
Out: one frozen :class:`Settings`, read once in ``__main__`` and passed down.
Errors: :class:`SettingsError`, whose message names each bad setting and what to do about it.
"""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as SourceError

ENV_PREFIX = "SYNTHGATE_"
CONFIG_FILE_VARIABLE = "SYNTHGATE_CONFIG_FILE"
SECRETS_DIR_VARIABLE = "SYNTHGATE_SECRETS_DIR"
REFERENCE_BUNDLE = Path(__file__).resolve().parent.parent / "engines" / "bundles" / "reference"

Port = Annotated[int, Field(ge=0, le=65535)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


def _split_words(value: object) -> object:
    """Accept ``a,b`` where a list is meant, as people write it in an environment variable."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_words)]


class SettingsError(Exception):
    """A setting is missing, unknown or out of range; the message says which and what to do."""


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(_Group):
    """The broker, the group and the three topics."""

    bootstrap_servers: str = Field(
        "localhost:9092", min_length=1, description="host:port of brokers, separated by commas"
    )
    group_id: str = Field("synthgate", min_length=1, description="consumer group of these workers")
    group_instance_id: str | None = Field(
        None, description="static membership: a name that is this worker's alone (a pod's name)"
    )
    client_id: str = Field("synthgate-worker", description="name shown in the broker's logs")
    input_topic: str = Field("images.uploaded", min_length=1, description="image events come in")
    verdict_topic: str = Field("images.verdicts", min_length=1, description="verdicts go out")
    dead_letter_topic: str = Field(
        "images.uploaded.DLT", min_length=1, description="events that can never work go here"
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
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            raise ValueError(
                f"heartbeat_interval_ms ({self.heartbeat_interval_ms}) must be at most a third of "
                f"session_timeout_ms ({self.session_timeout_ms}): lower it or raise the session"
            )
        if len({self.input_topic, self.verdict_topic, self.dead_letter_topic}) < 3:  # noqa: PLR2004 (three topics)
            raise ValueError(
                "input_topic, verdict_topic and dead_letter_topic must differ: a worker that "
                "writes to its own input would feed itself for ever"
            )
        if self.security_protocol.startswith("SASL"):
            self._require_sasl()
        elif self.sasl_mechanism or self.sasl_username or self.sasl_password:
            raise ValueError(
                f"SASL credentials are set but security_protocol is {self.security_protocol}: "
                "set it to SASL_SSL (or SASL_PLAINTEXT), or remove the sasl_* settings"
            )
        _require_files(self, "ssl_ca_file", "ssl_cert_file", "ssl_key_file")
        return self

    def _require_sasl(self) -> None:
        missing = [
            name
            for name in ("sasl_mechanism", "sasl_username", "sasl_password")
            if getattr(self, name) is None
        ]
        if missing:
            raise ValueError(f"{self.security_protocol} needs {', '.join(missing)} as well")


class RedisSettings(_Group):
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
        parts = urlsplit(self.url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("url must start with redis://, rediss:// (TLS) or unix://")
        if parts.password:
            raise ValueError(
                "url holds a password, which logs would show: remove it and set password "
                "(SYNTHGATE_REDIS__PASSWORD or the secret file redis__password)"
            )
        if parts.scheme != "rediss" and (self.tls_ca_file or self.tls_cert_file):
            raise ValueError("tls_* files are set but url is not rediss://: change its scheme")
        _require_files(self, "tls_ca_file", "tls_cert_file", "tls_key_file")
        return self


class EngineSettings(_Group):
    """Which detector, and how it runs."""

    bundle: Path = Field(REFERENCE_BUNDLE, description="directory of the bundle to load")
    runtime: str = Field("auto", description="auto (the bundle's order) or onnxruntime-cpu")
    threads: PositiveInt = Field(1, description="threads of one inference")


class FetchSettings(_Group):
    """Where image bytes named by ``uri`` may come from."""

    schemes: Words = Field(("https",), description="allowed: https, http, s3, file")
    allow_hosts: Words = Field((), description="only these hosts (empty: any public host)")
    allow_private_networks: bool = Field(
        default=False, description="let events name loopback, link-local and private addresses"
    )
    file_root: Path | None = Field(None, description="file: URIs must lie below this directory")
    s3_endpoint: str | None = Field(None, description="S3-compatible endpoint (default: AWS)")
    s3_region: str = Field("us-east-1", description="region of the buckets")
    s3_access_key_id: str | None = Field(None, description="access key (default: anonymous)")
    s3_secret_access_key: SecretStr | None = Field(None, description="secret key (secret)")
    timeout_s: PositiveFloat = Field(10.0, description="one attempt, from connect to last byte")
    attempts: PositiveInt = Field(3, description="attempts before a fetch is a dead letter")
    backoff_s: PositiveFloat = Field(0.5, description="pause before the second attempt; doubles")
    threads: PositiveInt = Field(8, description="fetches at the same time")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unknown = set(self.schemes) - {"https", "http", "s3", "file"}
        if unknown:
            raise ValueError(f"unknown scheme {sorted(unknown)}: use https, http, s3 or file")
        if "file" in self.schemes and self.file_root is None:
            raise ValueError(
                "file: URIs are allowed but file_root is not set: name the one directory that "
                "events may read from"
            )
        if self.file_root is not None and not self.file_root.is_dir():
            raise ValueError(f"file_root {self.file_root} is not a directory: create or correct it")
        return self


class DecodeSettings(_Group):
    """Caps that are checked before any pixel is decoded."""

    threads: PositiveInt = Field(2, description="decodes at the same time")
    max_bytes: PositiveInt = Field(20 * 1024 * 1024, description="largest encoded image")
    max_pixels: PositiveInt = Field(50_000_000, description="largest image, width x height")
    max_jpeg_scans: PositiveInt = Field(64, description="more scans than this is an attack")
    min_side_px: PositiveInt = Field(16, description="smaller images carry no evidence")


class BatchSettings(_Group):
    """When a batch closes: by size or by age, whichever comes first."""

    max_images: PositiveInt = Field(16, description="images in one batch")
    max_age_ms: PositiveInt = Field(20, description="longest wait of the first image of a batch")


class FlowSettings(_Group):
    """How much one worker takes on, and how it lets go."""

    max_in_flight: PositiveInt = Field(
        256, description="events taken but not published; partitions pause above it"
    )
    max_in_flight_bytes: PositiveInt = Field(
        256 * 1024 * 1024, description="bytes of those events; partitions pause above it"
    )
    commit_interval_ms: PositiveInt = Field(500, description="pause between offset commits")
    drain_timeout_s: PositiveFloat = Field(
        25.0, description="time to finish what was taken, at SIGTERM or when partitions move"
    )
    retry_backoff_s: PositiveFloat = Field(
        0.2, description="pause after a failed publish; doubles up to retry_backoff_max_s"
    )
    retry_backoff_max_s: PositiveFloat = Field(5.0, description="longest such pause")


class DecideSettings(_Group):
    """From a score to a band."""

    threshold_set: str | None = Field(None, description="id in the manifest (default: its own)")
    block: Literal["corroborated", "threshold"] = Field(
        "corroborated",
        description="corroborated: a score alone asks for review, never blocks; "
        "threshold: block at the threshold set's block point",
    )
    mode: Literal["enforce", "shadow", "canary"] = Field(
        "enforce",
        description="written into each verdict; a shadow verdict is not stored as the content's verdict",
    )
    source: str = Field("/synthgate/worker", description="CloudEvents source of the verdicts")


class HealthSettings(_Group):
    """The HTTP port for probes and metrics."""

    host: str = Field("127.0.0.1", description="0.0.0.0 in a container")
    port: Port = Field(9464, description="0 picks a free port and logs it")
    stall_after_s: PositiveFloat = Field(
        60.0, description="no progress for this long while lag grows: not live"
    )
    dependency_check_s: PositiveFloat = Field(
        2.0, description="pause between checks of broker and cache"
    )


class LogSettings(_Group):
    """structlog."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="threshold")
    format: Literal["json", "console"] = Field("json", description="console is for people")


class Settings(BaseSettings):
    """All settings of a worker, validated and frozen."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
        secrets_dir_missing="error",
        secrets_nested_delimiter="__",
        secrets_prefix="",
        hide_input_in_errors=True,
    )

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    fetch: FetchSettings = Field(default_factory=FetchSettings)
    decode: DecodeSettings = Field(default_factory=DecodeSettings)
    batch: BatchSettings = Field(default_factory=BatchSettings)
    flow: FlowSettings = Field(default_factory=FlowSettings)
    decide: DecideSettings = Field(default_factory=DecideSettings)
    health: HealthSettings = Field(default_factory=HealthSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch.max_images > self.flow.max_in_flight:
            raise ValueError(
                f"batch.max_images ({self.batch.max_images}) is more than flow.max_in_flight "
                f"({self.flow.max_in_flight}): a batch could never fill; raise the latter"
            )
        return self

    @classmethod
    def settings_customise_sources(  # noqa: D102 (pydantic-settings' hook: its order is ours)
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (no .env files: see above)
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        secrets = NestedSecretsSettingsSource(file_secret_settings)
        return init_settings, env_settings, secrets, TomlConfigSettingsSource(settings_cls)


def load_settings(config_file: Path | None = None, secrets_dir: Path | None = None) -> Settings:
    """Read the environment, the secret files and the TOML file into one frozen object.

    Args:
        config_file: A TOML file; by default what ``SYNTHGATE_CONFIG_FILE`` names, if anything.
        secrets_dir: A directory of secret files; by default what ``SYNTHGATE_SECRETS_DIR`` names.

    Raises:
        SettingsError: A file is missing or malformed, or a setting is unknown or out of range.
    """
    config_file = config_file or _path_from(CONFIG_FILE_VARIABLE)
    secrets_dir = secrets_dir or _path_from(SECRETS_DIR_VARIABLE)
    if config_file is not None and not config_file.is_file():
        raise SettingsError(f"config file {config_file} does not exist: create or correct it")
    if secrets_dir is not None and not secrets_dir.is_dir():
        raise SettingsError(f"secrets directory {secrets_dir} does not exist: mount or correct it")
    _refuse_unknown_variables()

    class _Located(Settings):
        model_config = SettingsConfigDict(toml_file=config_file, secrets_dir=secrets_dir)

    try:
        return _Located()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error
    except (SourceError, tomllib.TOMLDecodeError, OSError) as error:
        raise SettingsError(f"the settings cannot be read: {error}") from error


def _path_from(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def _require_files(group: BaseModel, *names: str) -> None:
    for name in names:
        path = getattr(group, name)
        if path is not None and not path.is_file():
            raise ValueError(f"{name} {path} does not exist: mount or correct it")


def _refuse_unknown_variables() -> None:
    """A misspelt group would silently leave its default in force, so it is an error."""
    groups = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    for variable in os.environ:
        head = variable.split("__")[0]
        known = head in groups or variable in (CONFIG_FILE_VARIABLE, SECRETS_DIR_VARIABLE)
        if variable.startswith(ENV_PREFIX) and not known:
            near = difflib.get_close_matches(head, groups, n=1)
            hint = f"; did you mean {near[0]}__...?" if near else ""
            raise SettingsError(f"{variable} is no setting of the worker{hint}")


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in item["loc"]]
        name = ".".join(path) or "settings"
        variable = ENV_PREFIX + "__".join(path).upper()
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "no such setting: correct the name or remove it"
        lines.append(f"{name} ({variable}): {message}" if path else message)
    return "the settings are not usable:\n  " + "\n  ".join(lines)
