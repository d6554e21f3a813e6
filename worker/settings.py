"""Every setting of the worker, and the only code that reads the environment.

Four sources set a value; the first that has it wins: the environment
(``SYNTHGATE_KAFKA__BOOTSTRAP_SERVERS=...``), a directory of secret files (``SYNTHGATE_SECRETS_DIR``, one file per
setting: ``kafka__sasl_password``), a TOML file (``[kafka]``), and the default.
:func:`load_settings` reads them once, at the start; the frozen :class:`Settings` is passed down from there.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
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

_BUNDLES = Path(__file__).resolve().parent.parent / "engines" / "bundles"
REFERENCE_BUNDLE = _BUNDLES / "reference"
# Signs the reference bundle only: its private key was destroyed (docs/adr/0008).
REFERENCE_KEY = _BUNDLES / "reference.pub.pem"

_SERVER = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]+):\d{1,5}")
_KAFKA_TLS_FILES = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")
_REDIS_TLS_FILES = ("tls_ca_file", "tls_cert_file", "tls_key_file")


class SettingsError(Exception):
    """A setting is missing, unknown or out of range; the message says which one and what to do."""


def _split_commas(value: object) -> object:
    """Accept ``a,b`` for a list, the usual form in an environment variable."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
Topic = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split_commas)]


class _Group(BaseModel):
    """One table of settings: frozen, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def _require_files(self, *names: str) -> None:
        """Refuse files that do not exist; ``names`` are the settings that hold their paths."""
        for name in names:
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name} {path} does not exist: mount or correct it")


class KafkaSettings(_Group):
    """The broker, the consumer group and the topics."""

    bootstrap_servers: str = Field(
        "localhost:9092", min_length=1, description="host:port of brokers, separated by commas"
    )
    group_id: str = Field("synthgate", min_length=1, description="consumer group of the workers")
    group_instance_id: str | None = Field(
        None, description="static membership: a name unique to this worker (a pod's name)"
    )
    client_id: str = Field("synthgate-worker", description="name shown in the broker's logs")
    input_topic: Topic = Field("images.uploaded", description="topic of the image events")
    verdict_topic: Topic = Field("images.verdicts", description="topic for verdicts")
    dead_letter_topic: Topic = Field(
        "images.uploaded.DLT", description="topic for events that cannot be processed"
    )
    shadow_topic: Topic = Field(
        "images.verdicts.shadow", description="topic for the shadow's verdicts (engine.shadow)"
    )
    auto_offset_reset: Literal["earliest", "latest"] = Field(
        "earliest", description="where a group without committed offsets starts"
    )
    session_timeout_ms: PositiveInt = Field(
        45_000, description="the broker reassigns a silent worker's partitions after this"
    )
    heartbeat_interval_ms: PositiveInt = Field(
        3_000, description="at most a third of session_timeout_ms"
    )
    max_poll_interval_ms: PositiveInt = Field(
        300_000, description="a worker that has not polled for this long leaves the group"
    )
    metadata_max_age_ms: PositiveInt = Field(
        60_000, description="new partitions of a topic are noticed within this time"
    )
    max_poll_records: PositiveInt = Field(64, description="most records returned by one poll")
    max_message_bytes: PositiveInt = Field(
        25 * 1024 * 1024,
        description="largest record read or written (a dead letter carries the original record)",
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "lz4", description="codec of verdicts and dead letters"
    )
    delivery_timeout_ms: PositiveInt = Field(
        30_000, description="a publish that is not acknowledged by then is retried"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="protocol of the connection to the brokers"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="required by SASL_PLAINTEXT and SASL_SSL"
    )
    sasl_username: str | None = Field(None, description="SASL user")
    sasl_password: SecretStr | None = Field(None, description="SASL password (secret)")
    ssl_ca_file: Path | None = Field(None, description="PEM file of the authority to trust")
    ssl_cert_file: Path | None = Field(None, description="PEM file of this client's certificate")
    ssl_key_file: Path | None = Field(None, description="PEM file of this client's key")
    ssl_key_password: SecretStr | None = Field(None, description="password of the key (secret)")
    ssl_check_hostname: bool = Field(
        default=True, description="check that the certificate is for the broker's host name"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for server in self.bootstrap_servers.split(","):
            if not _SERVER.fullmatch(server.strip()):
                raise ValueError(
                    f"bootstrap_servers contains {server.strip()!r}, which is not host:port: write "
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
                "worker that writes to its own input would loop, and a shadow's verdict must not "
                "be mistaken for a deciding one"
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
        given = [name for name in _KAFKA_TLS_FILES if getattr(self, name) is not None]
        if given and not self.security_protocol.endswith("SSL"):
            raise ValueError(
                f"{', '.join(given)} is set but security_protocol is {self.security_protocol}: "
                "set it to SSL or SASL_SSL, or remove the ssl_* settings"
            )
        if self.ssl_key_file is not None and self.ssl_cert_file is None:
            raise ValueError("ssl_key_file needs ssl_cert_file as well")
        self._require_files(*_KAFKA_TLS_FILES)

    def _require_sasl(self) -> None:
        names = ("sasl_mechanism", "sasl_username", "sasl_password")
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.security_protocol} needs {', '.join(missing)} as well")


class RedisSettings(_Group):
    """The cache of verdicts and scores."""

    url: str = Field(
        "redis://localhost:6379/0", description="redis://host:port/db, rediss:// for TLS"
    )
    username: str | None = Field(None, description="ACL user")
    password: SecretStr | None = Field(None, description="ACL password (secret)")
    tls_ca_file: Path | None = Field(None, description="PEM file of the authority to trust")
    tls_cert_file: Path | None = Field(None, description="PEM file of this client's certificate")
    tls_key_file: Path | None = Field(None, description="PEM file of this client's key")
    timeout_s: PositiveFloat = Field(
        5.0, description="timeout of one command or connection attempt"
    )
    key_prefix: str = Field("synthgate", min_length=1, description="prefix of every key")
    verdict_ttl_s: PositiveInt = Field(30 * 86_400, description="how long a verdict is kept")
    score_ttl_s: PositiveInt = Field(7 * 86_400, description="how long a score is cached")
    published_ttl_s: PositiveInt = Field(
        7 * 86_400, description="how long a redelivered event is recognised as published"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        scheme = self._checked_scheme()
        if scheme != "rediss" and any(getattr(self, name) for name in _REDIS_TLS_FILES):
            raise ValueError("tls_* files are set but url is not rediss://: change its scheme")
        if self.tls_key_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_key_file needs tls_cert_file as well")
        self._require_files(*_REDIS_TLS_FILES)
        return self

    def _checked_scheme(self) -> str:
        """The URL's scheme; no message shows the URL, because it may hold a password."""
        try:
            parts = urlsplit(self.url)
            _ = parts.port  # raises ValueError where the port is not a number
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


class EngineSettings(_Group):
    """Which detector runs, and how."""

    bundle: Path | None = Field(
        None,
        description="directory of the bundle to load (default: the reference bundle in "
        "`engines/bundles/reference`, if store is not set)",
    )
    runtime: str = Field(
        "auto",
        description="auto (the bundle's order), onnxruntime-cpu, openvino-cpu, tensorrt or tensorrt-rtx",
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="where the engine may run; with gpu, no usable GPU is a start-up error"
    )
    threads: PositiveInt = Field(1, description="threads of one inference")
    trusted_keys: Paths = Field(
        (REFERENCE_KEY,),
        description="public keys (PEM files, or directories of *.pem) whose signed bundles are loaded",
    )
    allow_unsigned: bool = Field(
        default=False, description="for development: load a bundle that no trusted key signed"
    )
    store: str | None = Field(
        None,
        min_length=1,
        description="instead of bundle: the release store, a directory or s3://BUCKET/PREFIX; "
        "the worker follows one of its channels",
    )
    cache_dir: Path | None = Field(
        None,
        description="required with store: directory of downloaded versions, kept over restarts",
    )
    channel: Literal["stable", "canary", "shadow"] = Field(
        "stable", description="the channel whose version decides"
    )
    poll_interval_s: PositiveFloat = Field(30.0, description="pause between polls of the channels")
    retry_refused_s: PositiveFloat = Field(
        3600.0, description="a refused version is retried after this, or when its channel moves"
    )
    canary_share: float = Field(
        0.0, ge=0, le=1, description="share of the contents that the canary channel decides"
    )
    shadow: bool = Field(
        default=False,
        description="also score every event with the shadow channel, for kafka.shadow_topic",
    )

    @property
    def fixed_bundle(self) -> Path | None:
        """The bundle that runs as long as the process; None where the worker follows a store."""
        return None if self.store is not None else self.bundle or REFERENCE_BUNDLE

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.store is None:
            self._refuse_store_options()
            return self
        if self.bundle is not None:
            raise ValueError(
                "bundle and store are both set, but a worker loads from one of them: remove "
                "bundle to follow the store's channel, or store to run that one bundle"
            )
        if "://" in self.store and not self.store.startswith("s3://"):
            raise ValueError("store must be a directory or s3://BUCKET/PREFIX")
        if self.cache_dir is None:
            raise ValueError("store needs cache_dir: name a directory that this worker may write")
        for enabled, channel, setting in (
            (self.canary_share > 0, "canary", "canary_share"),
            (self.shadow, "shadow", "shadow"),
        ):
            if enabled and self.channel == channel:
                raise ValueError(
                    f"channel is {channel} already, so it decides every event: set channel to "
                    f"stable, or remove {setting}"
                )
        return self

    def _refuse_store_options(self) -> None:
        """Without a store these options would silently do nothing."""
        if self.canary_share > 0 or self.shadow:
            raise ValueError("canary_share and shadow need store: name the release store")
        if self.cache_dir is not None or self.channel != "stable":
            raise ValueError("cache_dir and channel have no effect without store: set it as well")


class FetchSettings(_Group):
    """Where an event's ``uri`` may point."""

    schemes: Words = Field(("https",), description="allowed schemes: https, http, s3, file")
    allow_hosts: Words = Field((), description="only these hosts (empty: any public host)")
    allow_private_networks: bool = Field(
        default=False, description="let events name loopback, link-local and private addresses"
    )
    file_root: Path | None = Field(None, description="file: URIs must lie below this directory")
    s3_endpoint: str | None = Field(None, description="S3-compatible endpoint (default: AWS)")
    s3_region: str = Field("us-east-1", description="region of the buckets")
    s3_access_key_id: str | None = Field(None, description="access key (default: anonymous)")
    s3_secret_access_key: SecretStr | None = Field(None, description="secret key (secret)")
    timeout_s: PositiveFloat = Field(
        10.0, description="timeout of one attempt, from connect to last byte"
    )
    attempts: PositiveInt = Field(3, description="attempts before the event becomes a dead letter")
    backoff_s: PositiveFloat = Field(
        0.5, description="pause before the second attempt; doubles for each further one"
    )
    threads: PositiveInt = Field(8, description="concurrent fetches")

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
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key go together: set both")
        if self.file_root is not None and not self.file_root.is_dir():
            raise ValueError(f"file_root {self.file_root} is not a directory: create or correct it")
        return self


class DecodeSettings(_Group):
    """Limits that are checked before any pixel is decoded."""

    threads: PositiveInt = Field(2, description="concurrent decodes")
    max_bytes: PositiveInt = Field(20 * 1024 * 1024, description="largest encoded image")
    max_pixels: PositiveInt = Field(50_000_000, description="largest image, width x height")
    max_jpeg_scans: PositiveInt = Field(
        64, description="a JPEG with more scans is refused as an attack"
    )
    min_side_px: PositiveInt = Field(16, description="smaller images carry no evidence")


class BatchSettings(_Group):
    """When a batch closes: by size or by age, whichever comes first."""

    max_images: PositiveInt = Field(16, description="most images in one batch")
    max_age_ms: PositiveInt = Field(20, description="longest wait of a batch's first image")


class FlowSettings(_Group):
    """Backpressure, commits and draining."""

    max_in_flight: PositiveInt = Field(
        256, description="events received but not published; partitions pause above it"
    )
    max_in_flight_bytes: PositiveInt = Field(
        256 * 1024 * 1024, description="bytes of those events; partitions pause above it"
    )
    commit_interval_ms: PositiveInt = Field(500, description="pause between offset commits")
    drain_timeout_s: PositiveFloat = Field(
        25.0, description="time to finish events in flight, at SIGTERM or in a rebalance"
    )
    retry_backoff_s: PositiveFloat = Field(
        0.2, description="pause after a failed publish; doubles up to retry_backoff_max_s"
    )
    retry_backoff_max_s: PositiveFloat = Field(5.0, description="longest such pause")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.retry_backoff_s > self.retry_backoff_max_s:
            raise ValueError(
                f"retry_backoff_s ({self.retry_backoff_s}) is more than retry_backoff_max_s "
                f"({self.retry_backoff_max_s}): raise the latter"
            )
        return self


class DecideSettings(_Group):
    """From a score to a band."""

    threshold_set: str | None = Field(
        None,
        description="a threshold set's id in the manifest, or the part after NAME-VERSION- "
        "(default: the manifest's choice)",
    )
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

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 in a container")
    port: Port = Field(9464, description="0 picks a free port and logs it")
    stall_after_s: PositiveFloat = Field(
        60.0, description="not live after this time without progress while lag grows"
    )
    dependency_check_s: PositiveFloat = Field(
        2.0, description="pause between checks of broker and cache"
    )


class LogSettings(_Group):
    """Logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest level that is written"
    )
    format: Literal["json", "console"] = Field(
        "json",
        description="json: one object per line; console: for people, coloured on a terminal "
        "(NO_COLOR turns colours off, FORCE_COLOR on)",
    )


class Settings(BaseSettings):
    """All settings of a worker, validated and frozen."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
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
                f"({self.flow.max_in_flight}), so a batch could never fill: raise the latter"
            )
        if self.decide.mode != "enforce" and (self.engine.canary_share > 0 or self.engine.shadow):
            raise ValueError(
                f"decide.mode is {self.decide.mode}, which applies to the whole worker: set it to "
                "enforce to run a canary or a shadow beside the engine that decides"
            )
        return self

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that must exist."""
        kafka = self.kafka
        always = (kafka.input_topic, kafka.verdict_topic, kafka.dead_letter_topic)
        return (*always, kafka.shadow_topic) if self.engine.shadow else always


def load_settings(
    environment: Mapping[str, str], config_file: Path | None = None, secrets_dir: Path | None = None
) -> Settings:
    """Read the environment, the secret files and the TOML file.

    Args:
        environment: The process's environment variables.
        config_file: A TOML file; by default the one that ``SYNTHGATE_CONFIG_FILE`` names, if set.
        secrets_dir: The secret files; by default the directory in ``SYNTHGATE_SECRETS_DIR``, if set.

    Raises:
        SettingsError: A file is missing or malformed, or a setting is unknown or out of range. The message
            names the setting and never shows its value.
    """
    config_file = config_file or _path_in(environment, CONFIG_FILE_VARIABLE)
    secrets_dir = secrets_dir or _path_in(environment, SECRETS_DIR_VARIABLE)
    if config_file is not None and not config_file.is_file():
        raise SettingsError(f"config file {config_file} does not exist: create or correct it")
    if secrets_dir is not None and not secrets_dir.is_dir():
        raise SettingsError(f"secrets directory {secrets_dir} does not exist: mount or correct it")
    _refuse_unknown_variables(environment)
    _refuse_unknown_secrets(secrets_dir)
    try:
        return _from_sources(environment, config_file, secrets_dir)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error
    except SourceError as error:
        raise SettingsError(
            f"the settings cannot be read: {error}: a variable for a whole group must be JSON; set "
            f"its settings one by one instead, such as {ENV_PREFIX}KAFKA__GROUP_ID"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"config file {config_file} is not TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"the settings cannot be read: {error}") from error


def _from_sources(
    environment: Mapping[str, str], config_file: Path | None, secrets_dir: Path | None
) -> Settings:
    variables = EnvSettingsSource(Settings)
    variables.env_vars = {name.lower(): value for name, value in environment.items()}

    class _Located(Settings):
        model_config = SettingsConfigDict(
            toml_file=config_file,
            secrets_dir=secrets_dir,
            secrets_dir_missing="error",
            secrets_nested_delimiter="__",
            secrets_prefix="",
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (it reads os.environ)
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (.env files are not read)
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            secrets = NestedSecretsSettingsSource(file_secret_settings)
            return init_settings, variables, secrets, TomlConfigSettingsSource(settings_cls)

    return _Located()


def _path_in(environment: Mapping[str, str], variable: str) -> Path | None:
    value = environment.get(variable)
    return Path(value) if value else None


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """A misspelt group would silently leave its default in place, so it is an error."""
    own = {CONFIG_FILE_VARIABLE, SECRETS_DIR_VARIABLE}
    groups = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    for variable in environment:
        head = variable.split("__")[0]
        if variable.startswith(ENV_PREFIX) and head not in groups and variable not in own:
            near = difflib.get_close_matches(head, groups | own, n=1)
            hint = f"; did you mean {near[0]}{'' if near[0] in own else '__...'}?" if near else ""
            raise SettingsError(f"{variable} is not a setting of the worker{hint}")


def _refuse_unknown_secrets(secrets_dir: Path | None) -> None:
    """A misspelt group would silently omit its secret; files of other kinds may lie there too."""
    for path in sorted(secrets_dir.iterdir()) if secrets_dir is not None else ():
        group, delimiter, _ = path.name.lower().partition("__")
        if delimiter and not path.name.startswith(".") and group not in Settings.model_fields:
            near = difflib.get_close_matches(group, Settings.model_fields, n=1)
            hint = f"; did you mean {near[0]}__...?" if near else ""
            raise SettingsError(f"secret file {path} is not a setting of the worker{hint}")


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in problem["loc"]]
        name = ".".join(path)
        variable = ENV_PREFIX + "__".join(path).upper()
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown setting: correct the name or remove it"
        lines.append(f"{name} ({variable}): {message}" if path else message)
    return "the settings are not valid:\n  " + "\n  ".join(lines)
