"""Settings: their rules, their sources and precedence, and error messages that never show a value."""

from collections.abc import Callable, Mapping
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
    SettingsError,
    load_settings,
)

SASL = {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "p"}


def complaint(group: type[BaseModel], values: dict[str, object]) -> str:
    """The one complaint about these values."""
    with pytest.raises(ValidationError) as caught:
        group.model_validate(values)
    (problem,) = caught.value.errors()
    return problem["msg"].removeprefix("Value error, ")


@pytest.mark.parametrize(
    ("values", "message"),
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
        ({"bootstrap_servers": "broker"}, "contains 'broker', which is not host:port"),
        ({"bootstrap_servers": "a:1,,b:2"}, "contains '', which is not host:port"),
        ({"bootstrap_servers": "kafka://a:1"}, "contains 'kafka://a:1', which is not host:port"),
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
def test_kafka(values: dict[str, object], message: str) -> None:
    """Groups, topics, TLS and SASL."""
    assert message in complaint(KafkaSettings, values)


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
    ("values", "message"),
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
def test_redis(values: dict[str, object], message: str) -> None:
    """The address, its password, and TLS."""
    assert message in complaint(RedisSettings, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schemes": "https,ftp"}, "unknown scheme ['ftp']: use https, http, s3 or file"),
        ({"schemes": ("file",)}, "file: URIs are allowed but file_root is not set"),
        ({"file_root": "/no/where"}, "file_root /no/where is not a directory"),
        ({"s3_access_key_id": "x"}, "s3_access_key_id and s3_secret_access_key go together"),
        ({"s3_secret_access_key": "x"}, "go together: set both"),
        ({"attempts": 0}, "Input should be greater than 0"),
    ],
)
def test_fetch(values: dict[str, object], message: str) -> None:
    """What events may name."""
    assert message in complaint(FetchSettings, values)


STORE = {"store": "/releases", "cache_dir": "/cache"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (STORE | {"bundle": "/bundle"}, "bundle and store are both set"),
        ({"store": "/releases"}, "store needs cache_dir: name a directory"),
        (STORE | {"store": "gs://bucket/x"}, "store must be a directory or s3://BUCKET/PREFIX"),
        (STORE | {"store": ""}, "String should have at least 1 character"),
        (STORE | {"channel": "beta"}, "Input should be 'stable', 'canary' or 'shadow'"),
        (STORE | {"canary_share": 1.1}, "Input should be less than or equal to 1"),
        (STORE | {"canary_share": 0.1, "channel": "canary"}, "remove canary_share"),
        (STORE | {"shadow": True, "channel": "shadow"}, "remove shadow"),
        ({"canary_share": 0.1}, "canary_share and shadow need store"),
        ({"shadow": True}, "canary_share and shadow need store"),
        ({"channel": "canary"}, "cache_dir and channel have no effect without store"),
        ({"cache_dir": "/cache"}, "cache_dir and channel have no effect without store"),
    ],
)
def test_engine(values: dict[str, object], message: str) -> None:
    """One bundle or one store is in force, never both, and nothing that would silently do nothing."""
    assert message in complaint(EngineSettings, values)


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
    message = complaint(Settings, {"engine": engine, "decide": {"mode": "shadow"}})
    assert "decide.mode is shadow, which applies to the whole worker" in message
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


SASL_OVER_TLS = {
    "SYNTHGATE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
    "SYNTHGATE_KAFKA__SASL_MECHANISM": "PLAIN",
    "SYNTHGATE_KAFKA__SASL_USERNAME": "worker",
}


class Load:
    """Reads settings from the given sources only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        toml: str | bytes | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> Settings:
        """The settings in force."""
        config_file = secrets_dir = None
        if toml is not None:
            config_file = self._directory / "worker.toml"
            config_file.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
        if secrets is not None:
            secrets_dir = self._directory / "secrets"
            secrets_dir.mkdir()
            for name, value in secrets.items():
                (secrets_dir / name).write_text(value)
        return load_settings(environment or {}, config_file, secrets_dir)

    def error(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        toml: str | bytes | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> str:
        """The message of the error that these sources raise."""
        with pytest.raises(SettingsError) as caught:
            self(environment, toml=toml, secrets=secrets)
        return str(caught.value)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads settings from a test's own sources."""
    return Load(tmp_path)


def test_the_process_environment_is_not_read(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the variables that the caller passes count."""
    monkeypatch.setenv("SYNTHGATE_BATCH__MAX_IMAGES", "3")
    assert (
        load().batch.max_images
        == Settings.model_fields["batch"].get_default(call_default_factory=True).max_images
    )


def test_without_any_source_the_defaults_hold(load: Load) -> None:
    """They are a working set."""
    assert load().model_dump() == Settings().model_dump()
    assert load().kafka.bootstrap_servers == "localhost:9092"


def test_the_environment_sets_one_setting_at_a_time(load: Load) -> None:
    """In whatever case; lists are words with commas between them."""
    loaded = load(
        {
            "SYNTHGATE_BATCH__MAX_IMAGES": "3",
            "synthgate_batch__max_age_ms": "7",
            "SYNTHGATE_FETCH__SCHEMES": "http, https",
            "SYNTHGATE_FETCH__ALLOW_HOSTS": "",
            "SYNTHGATE_KAFKA__SSL_CHECK_HOSTNAME": "false",
        }
    )
    assert (loaded.batch.max_images, loaded.batch.max_age_ms) == (3, 7)
    assert (loaded.fetch.schemes, loaded.fetch.allow_hosts) == (("http", "https"), ())
    assert loaded.kafka.ssl_check_hostname is False


def test_a_file_sets_many(load: Load) -> None:
    """TOML, with a table a group."""
    loaded = load(toml='[kafka]\ngroup_id = "blue"\n[fetch]\nschemes = ["http"]\n')
    assert (loaded.kafka.group_id, loaded.fetch.schemes) == ("blue", ("http",))


def test_the_environment_wins_over_secrets_and_those_over_the_file(load: Load) -> None:
    """Setting by setting: the others of a group stay as their source has them."""
    loaded = load(
        {"SYNTHGATE_REDIS__USERNAME": "from-environment"},
        secrets={"redis__username": "from-secret", "redis__password": "from-secret"},
        toml='[redis]\nusername = "file"\npassword = "file"\nkey_prefix = "file"\n',
    )
    assert loaded.redis.username == "from-environment"
    assert loaded.redis.password is not None
    assert loaded.redis.password.get_secret_value() == "from-secret"
    assert loaded.redis.key_prefix == "file"


def test_files_may_be_named_by_the_environment(load: Load, tmp_path: Path) -> None:
    """As a container does it."""
    (tmp_path / "w.toml").write_text("[batch]\nmax_images = 5\n")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "redis__username").write_text("worker")
    loaded = load(
        {
            "SYNTHGATE_CONFIG_FILE": str(tmp_path / "w.toml"),
            "SYNTHGATE_SECRETS_DIR": str(tmp_path / "s"),
        }
    )
    assert (loaded.batch.max_images, loaded.redis.username) == (5, "worker")


def test_secrets_are_read_as_kubernetes_mounts_them(load: Load, tmp_path: Path) -> None:
    """Links through ..data to a directory of its date; a newline at the end is nobody's password."""
    dated = tmp_path / "mount" / "..2026_02_02"
    dated.mkdir(parents=True)
    (dated / "kafka__sasl_password").write_text("pass word\n")
    (dated / "ca.crt").write_text("PEM")
    (tmp_path / "mount" / "..data").symlink_to("..2026_02_02")
    for name in ("kafka__sasl_password", "ca.crt"):
        (tmp_path / "mount" / name).symlink_to(f"..data/{name}")
    loaded = load(SASL_OVER_TLS | {"SYNTHGATE_SECRETS_DIR": str(tmp_path / "mount")})
    assert loaded.kafka.sasl_password is not None
    assert loaded.kafka.sasl_password.get_secret_value() == "pass word"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SYNTHGATE_KAFKA__GROUP": "x"}, "kafka.group (SYNTHGATE_KAFKA__GROUP): unknown setting"),
        (
            {"SYNTHGATE_KAFAK__GROUP_ID": "x"},
            "SYNTHGATE_KAFAK__GROUP_ID is not a setting of the worker; did you mean SYNTHGATE_KAFKA__...?",
        ),
        ({"SYNTHGATE_CONFIG_FIL": "x"}, "did you mean SYNTHGATE_CONFIG_FILE?"),
        ({"SYNTHGATE_ZZZZZZ": "x"}, "SYNTHGATE_ZZZZZZ is not a setting of the worker"),
        (
            {"SYNTHGATE_BATCH__MAX_IMAGES": "many"},
            "batch.max_images (SYNTHGATE_BATCH__MAX_IMAGES): Input should be a valid integer",
        ),
        (
            {"SYNTHGATE_KAFKA": "{"},
            "a variable for a whole group must be JSON; set its settings one by one",
        ),
        ({"SYNTHGATE_CONFIG_FILE": "/no/file.toml"}, "config file /no/file.toml does not exist"),
        ({"SYNTHGATE_SECRETS_DIR": "/no/where"}, "secrets directory /no/where does not exist"),
    ],
)
def test_a_mistake_in_the_environment_is_reported(
    load: Load, environment: dict[str, str], message: str
) -> None:
    """With the variable's name, and what it might have been."""
    assert message in load.error(environment)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[kafka]\ngroup = 'x'\n", "kafka.group (SYNTHGATE_KAFKA__GROUP): unknown setting"),
        ("[kafak]\n", "kafak (SYNTHGATE_KAFAK): unknown setting"),
        ("kafka = 'x'\n", "kafka (SYNTHGATE_KAFKA): Input should be a valid dictionary"),
        ("[kafka\n", "is not TOML: "),
        (b"\xff\xfe", "is not TOML: "),
    ],
)
def test_a_mistake_in_the_file_is_reported(load: Load, toml: str | bytes, message: str) -> None:
    """With the setting's name, or the place where the file goes wrong."""
    assert message in load.error(toml=toml)


def test_a_misspelt_secret_file_is_reported(load: Load) -> None:
    """A secret that silently stays out would look like a wrong password."""
    message = load.error(secrets={"rediss__password": "hidden"})
    assert "rediss__password is not a setting of the worker; did you mean redis__...?" in message


def test_every_mistake_is_reported_at_once(load: Load) -> None:
    """One line each."""
    message = load.error({"SYNTHGATE_BATCH__MAX_IMAGES": "0", "SYNTHGATE_LOG__LEVEL": "loud"})
    assert [line.split(" ")[2] for line in message.splitlines()[1:]] == [
        "batch.max_images",
        "log.level",
    ]


SECRET = "tOpSeCrEt"


@pytest.mark.parametrize(
    "source",
    [
        lambda load: load(
            {"SYNTHGATE_REDIS__PASSWORD": SECRET, "SYNTHGATE_BATCH__MAX_IMAGES": "x"}
        ),
        lambda load: load({"SYNTHGATE_KAFKA__SASL_PASSWORD": SECRET}),
        lambda load: load({"SYNTHGATE_REDIS__URL": f"redis://:{SECRET}@cache:6379"}),
        lambda load: load({"SYNTHGATE_REDIS__URL": f"redis://cache:6379?password={SECRET}"}),
        lambda load: load({"SYNTHGATE_REDIS__URL": f"redis://me:{SECRET}/x@cache:6379"}),
        lambda load: load({"SYNTHGATE_KAFKA": f'{{"sasl_password": "{SECRET}"'}),
        lambda load: load({"SYNTHGATE_KAFKA": f'{{"sasl_pass": "{SECRET}"}}'}),
        lambda load: load(toml=f'[redis]\npassword = ["{SECRET}"]\n'),
        lambda load: load(toml=f'[redis]\npasswort = "{SECRET}"\n'),
        lambda load: load(secrets={"redis__passwort": SECRET}),
        lambda load: load(secrets={"fetch__s3_secret_access_key": SECRET}),
    ],
)
def test_no_error_shows_a_secret(load: Load, source: Callable[[Load], Settings]) -> None:
    """Neither its message nor the errors behind it: all of them are logged."""
    with pytest.raises(SettingsError) as caught:
        source(load)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        assert SECRET not in repr(error)
        error = error.__cause__


def test_no_form_of_the_settings_shows_a_secret(load: Load) -> None:
    """As text, as Python, as JSON: that is what check-config prints."""
    loaded = load(
        SASL_OVER_TLS
        | {
            "SYNTHGATE_KAFKA__SASL_PASSWORD": SECRET,
            "SYNTHGATE_KAFKA__SSL_KEY_PASSWORD": SECRET,
            "SYNTHGATE_REDIS__PASSWORD": SECRET,
            "SYNTHGATE_FETCH__S3_ACCESS_KEY_ID": "AKIA",
            "SYNTHGATE_FETCH__S3_SECRET_ACCESS_KEY": SECRET,
        }
    )
    for text in (str(loaded), repr(loaded), loaded.model_dump_json(), str(loaded.model_dump())):
        assert SECRET not in text
    assert loaded.redis.password is not None
    assert loaded.redis.password.get_secret_value() == SECRET


def test_settings_are_frozen(load: Load) -> None:
    """What was validated at the start holds to the end."""
    loaded = load()
    with pytest.raises(ValidationError):
        loaded.batch.max_images = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        loaded.batch = Settings().batch  # type: ignore[misc]
