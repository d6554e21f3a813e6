"""Every setting of the worker: the only place that reads the environment.

In: the environment (``SYNTHGATE_KAFKA__BOOTSTRAP_SERVERS=...``), a TOML file (``[kafka]``), and a
directory of secret files (``SYNTHGATE_SECRETS_DIR``, one file a setting: ``kafka__sasl_password``).
The environment wins over secret files, those over the TOML file, that over the defaults.
Out: one frozen :class:`Settings`, read once in ``__main__`` (by :mod:`worker.settings_sources`) and passed down.
Errors: pydantic's, with messages that say what to do.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from worker.settings_connections import (
    Group,
    KafkaSettings,
    PositiveFloat,
    PositiveInt,
    RedisSettings,
)

__all__ = [
    "BatchSettings",
    "DecideSettings",
    "DecodeSettings",
    "EngineSettings",
    "FetchSettings",
    "FlowSettings",
    "HealthSettings",
    "KafkaSettings",
    "LogSettings",
    "RedisSettings",
    "Settings",
]

ENV_PREFIX = "SYNTHGATE_"
_BUNDLES = Path(__file__).resolve().parent.parent / "engines" / "bundles"
REFERENCE_BUNDLE = _BUNDLES / "reference"
# Signs the reference bundle alone: its private half was thrown away (docs/adr/0008).
REFERENCE_KEY = _BUNDLES / "reference.pub.pem"

Port = Annotated[int, Field(ge=0, le=65535)]


def _split_words(value: object) -> object:
    """Accept ``a,b`` where a list is meant, as people write it in an environment variable."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_words)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split_words)]


class EngineSettings(Group):
    """Which detector, and how it runs."""

    bundle: Path = Field(REFERENCE_BUNDLE, description="directory of the bundle to load")
    runtime: str = Field(
        "auto",
        description="auto (the bundle's order), onnxruntime-cpu, openvino-cpu, tensorrt or tensorrt-rtx",
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="where it may run; gpu: a worker that can use none does not start"
    )
    threads: PositiveInt = Field(1, description="threads of one inference")
    trusted_keys: Paths = Field(
        (REFERENCE_KEY,),
        description="public keys (PEM files, or directories of *.pem) whose signed bundles are loaded",
    )
    allow_unsigned: bool = Field(
        default=False, description="for development: load a bundle that no trusted key signed"
    )


class FetchSettings(Group):
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
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key go together: set both")
        if self.file_root is not None and not self.file_root.is_dir():
            raise ValueError(f"file_root {self.file_root} is not a directory: create or correct it")
        return self


class DecodeSettings(Group):
    """Caps that are checked before any pixel is decoded."""

    threads: PositiveInt = Field(2, description="decodes at the same time")
    max_bytes: PositiveInt = Field(20 * 1024 * 1024, description="largest encoded image")
    max_pixels: PositiveInt = Field(50_000_000, description="largest image, width x height")
    max_jpeg_scans: PositiveInt = Field(64, description="more scans than this is an attack")
    min_side_px: PositiveInt = Field(16, description="smaller images carry no evidence")


class BatchSettings(Group):
    """When a batch closes: by size or by age, whichever comes first."""

    max_images: PositiveInt = Field(16, description="images in one batch")
    max_age_ms: PositiveInt = Field(20, description="longest wait of the first image of a batch")


class FlowSettings(Group):
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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.retry_backoff_s > self.retry_backoff_max_s:
            raise ValueError(
                f"retry_backoff_s ({self.retry_backoff_s}) is more than retry_backoff_max_s "
                f"({self.retry_backoff_max_s}): raise the latter"
            )
        return self


class DecideSettings(Group):
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


class HealthSettings(Group):
    """The HTTP port for probes and metrics."""

    host: str = Field("127.0.0.1", description="0.0.0.0 in a container")
    port: Port = Field(9464, description="0 picks a free port and logs it")
    stall_after_s: PositiveFloat = Field(
        60.0, description="no progress for this long while lag grows: not live"
    )
    dependency_check_s: PositiveFloat = Field(
        2.0, description="pause between checks of broker and cache"
    )


class LogSettings(Group):
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
