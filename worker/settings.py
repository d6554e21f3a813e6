"""Every setting of the worker: the only place that reads the environment.

In: the environment (``SYNTHGATE_KAFKA__BOOTSTRAP_SERVERS=...``), a TOML file (``[kafka]``), and a
directory of secret files (``SYNTHGATE_SECRETS_DIR``, one file a setting: ``kafka__sasl_password``).
The environment wins over secret files, those over the TOML file, that over the defaults.
Out: one frozen :class:`Settings`, read once in ``__main__`` (by :mod:`worker.settings_sources`) and passed down.
Errors: pydantic's, with messages that say what to do.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
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
from worker.settings_images import DecodeSettings, FetchSettings, split_words

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


Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(split_words)]


class EngineSettings(Group):
    """Which detector, and how it runs."""

    bundle: Path | None = Field(
        None,
        description="directory of the bundle to load (default: the reference bundle in "
        "`engines/bundles/reference`, where no store is named)",
    )
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
    store: str | None = Field(
        None,
        min_length=1,
        description="in place of bundle: the releases, a directory or s3://BUCKET/PREFIX; the "
        "worker follows a channel of theirs",
    )
    cache_dir: Path | None = Field(
        None, description="needed with store: where fetched versions lie, better across restarts"
    )
    channel: Literal["stable", "canary", "shadow"] = Field(
        "stable", description="the channel whose version decides"
    )
    poll_interval_s: PositiveFloat = Field(30.0, description="pause between looks at the channels")
    retry_refused_s: PositiveFloat = Field(
        3600.0, description="a refused version is tried again after this, or once its channel moves"
    )
    canary_share: float = Field(
        0.0, ge=0, le=1, description="share of the contents about which the channel canary decides"
    )
    shadow: bool = Field(
        default=False,
        description="let the channel shadow score every event as well, for kafka.shadow_topic",
    )

    @property
    def fixed_bundle(self) -> Path | None:
        """The bundle in force for as long as the process runs; None where a store's channel is."""
        return None if self.store is not None else self.bundle or REFERENCE_BUNDLE

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.store is None:
            self._refuse_followers()
            return self
        if self.bundle is not None:
            raise ValueError(
                "bundle and store are both set, and a worker loads from one of them: leave out "
                "bundle to follow the store's channel, or store to run that one bundle"
            )
        if "://" in self.store and not self.store.startswith("s3://"):
            raise ValueError("store must be a directory or s3://BUCKET/PREFIX")
        if self.cache_dir is None:
            raise ValueError("store needs cache_dir: name a directory that this worker may write")
        for on, name in ((self.canary_share > 0, "canary"), (self.shadow, "shadow")):
            if on and self.channel == name:
                raise ValueError(
                    f"channel is {name} already, so it decides about everything: set channel to "
                    f"stable, or leave out {'canary_share' if name == 'canary' else 'shadow'}"
                )
        return self

    def _refuse_followers(self) -> None:
        """A canary without a store would silently be none."""
        if self.canary_share > 0 or self.shadow:
            raise ValueError("canary_share and shadow need store: name the releases' store")
        if self.cache_dir is not None or self.channel != "stable":
            raise ValueError("cache_dir and channel mean nothing without store: set it as well")


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

    threshold_set: str | None = Field(
        None,
        description="id in the manifest, or what follows NAME-VERSION- in it (default: its own)",
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
        if self.decide.mode != "enforce" and (self.engine.canary_share > 0 or self.engine.shadow):
            raise ValueError(
                f"decide.mode is {self.decide.mode}, so all of this worker is one: leave it at "
                "enforce to have a canary or a shadow beside the engine that decides"
            )
        return self

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that must exist."""
        kafka = self.kafka
        always = (kafka.input_topic, kafka.verdict_topic, kafka.dead_letter_topic)
        return (*always, kafka.shadow_topic) if self.engine.shadow else always

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
