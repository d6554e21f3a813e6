"""Where settings come from, which source wins, and what a mistake is told; never with its value."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.settings import Settings
from worker.settings_sources import SettingsError, load_settings

SASL = {
    "SYNTHGATE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
    "SYNTHGATE_KAFKA__SASL_MECHANISM": "PLAIN",
    "SYNTHGATE_KAFKA__SASL_USERNAME": "worker",
}


class Load:
    """Settings read from these sources and no others."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._tmp_path = tmp_path
        self._monkeypatch = monkeypatch
        for name in os.environ:
            if name.startswith("SYNTHGATE_"):
                monkeypatch.delenv(name)

    def __call__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        toml: str | bytes | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read them."""
        for name, value in (environment or {}).items():
            self._monkeypatch.setenv(name, value)
        config_file = secrets_dir = None
        if toml is not None:
            config_file = self._tmp_path / "worker.toml"
            config_file.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
        if secrets is not None:
            secrets_dir = self._tmp_path / "secrets"
            secrets_dir.mkdir()
            for name, value in secrets.items():
                (secrets_dir / name).write_text(value)
        return load_settings(config_file, secrets_dir)

    def refused(self, *args: Mapping[str, str], **sources: str | bytes | Mapping[str, str]) -> str:
        """The message of the error that these sources give."""
        with pytest.raises(SettingsError) as caught:
            self(*args, **sources)  # type: ignore[arg-type]
        return str(caught.value)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """A clean environment to read settings in."""
    return Load(tmp_path, monkeypatch)


def test_without_any_source_the_defaults_hold(load: Load) -> None:
    """They are a working set."""
    assert load().model_dump() == Settings().model_dump()
    assert load().kafka.bootstrap_servers == "localhost:9092"


def test_the_environment_sets_one_setting_at_a_time(load: Load) -> None:
    """In whatever case; lists are words with commas between them."""
    found = load(
        {
            "SYNTHGATE_BATCH__MAX_IMAGES": "3",
            "synthgate_batch__max_age_ms": "7",
            "SYNTHGATE_FETCH__SCHEMES": "http, https",
            "SYNTHGATE_FETCH__ALLOW_HOSTS": "",
            "SYNTHGATE_KAFKA__SSL_CHECK_HOSTNAME": "false",
        }
    )
    assert (found.batch.max_images, found.batch.max_age_ms) == (3, 7)
    assert (found.fetch.schemes, found.fetch.allow_hosts) == (("http", "https"), ())
    assert found.kafka.ssl_check_hostname is False


def test_a_file_sets_many(load: Load) -> None:
    """TOML, with a table a group."""
    found = load(toml='[kafka]\ngroup_id = "blue"\n[fetch]\nschemes = ["http"]\n')
    assert (found.kafka.group_id, found.fetch.schemes) == ("blue", ("http",))


def test_the_environment_wins_over_secrets_and_those_over_the_file(load: Load) -> None:
    """Setting by setting: the others of a group stay as their source has them."""
    found = load(
        {"SYNTHGATE_REDIS__USERNAME": "from-environment"},
        secrets={"redis__username": "from-secret", "redis__password": "from-secret"},
        toml='[redis]\nusername = "file"\npassword = "file"\nkey_prefix = "file"\n',
    )
    assert found.redis.username == "from-environment"
    assert found.redis.password is not None
    assert found.redis.password.get_secret_value() == "from-secret"
    assert found.redis.key_prefix == "file"


def test_files_may_be_named_by_the_environment(load: Load, tmp_path: Path) -> None:
    """As a container does it."""
    (tmp_path / "w.toml").write_text("[batch]\nmax_images = 5\n")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "redis__username").write_text("worker")
    found = load(
        {
            "SYNTHGATE_CONFIG_FILE": str(tmp_path / "w.toml"),
            "SYNTHGATE_SECRETS_DIR": str(tmp_path / "s"),
        }
    )
    assert (found.batch.max_images, found.redis.username) == (5, "worker")


def test_secrets_are_read_as_kubernetes_mounts_them(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links through ..data to a directory of its date; a newline at the end is nobody's password."""
    dated = tmp_path / "mount" / "..2026_02_02"
    dated.mkdir(parents=True)
    (dated / "kafka__sasl_password").write_text("pass word\n")
    (dated / "ca.crt").write_text("PEM")
    (tmp_path / "mount" / "..data").symlink_to("..2026_02_02")
    for name in ("kafka__sasl_password", "ca.crt"):
        (tmp_path / "mount" / name).symlink_to(f"..data/{name}")
    monkeypatch.setenv("SYNTHGATE_SECRETS_DIR", str(tmp_path / "mount"))
    found = load(SASL)
    assert found.kafka.sasl_password is not None
    assert found.kafka.sasl_password.get_secret_value() == "pass word"


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"SYNTHGATE_KAFKA__GROUP": "x"}, "kafka.group (SYNTHGATE_KAFKA__GROUP): no such setting"),
        (
            {"SYNTHGATE_KAFAK__GROUP_ID": "x"},
            "SYNTHGATE_KAFAK__GROUP_ID is no setting of the worker; did you mean SYNTHGATE_KAFKA__...?",
        ),
        ({"SYNTHGATE_CONFIG_FIL": "x"}, "did you mean SYNTHGATE_CONFIG_FILE?"),
        ({"SYNTHGATE_ZZZZZZ": "x"}, "SYNTHGATE_ZZZZZZ is no setting of the worker"),
        (
            {"SYNTHGATE_BATCH__MAX_IMAGES": "many"},
            "batch.max_images (SYNTHGATE_BATCH__MAX_IMAGES): Input should be a valid integer",
        ),
        ({"SYNTHGATE_KAFKA": "{"}, "a whole group is JSON; set its parts one by one"),
        ({"SYNTHGATE_CONFIG_FILE": "/no/file.toml"}, "config file /no/file.toml does not exist"),
        ({"SYNTHGATE_SECRETS_DIR": "/no/where"}, "secrets directory /no/where does not exist"),
    ],
)
def test_a_mistake_in_the_environment_is_told(
    load: Load, environment: dict[str, str], told: str
) -> None:
    """With the variable's name, and what it might have been."""
    assert told in load.refused(environment)


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[kafka]\ngroup = 'x'\n", "kafka.group (SYNTHGATE_KAFKA__GROUP): no such setting"),
        ("[kafak]\n", "kafak (SYNTHGATE_KAFAK): no such setting"),
        ("kafka = 'x'\n", "kafka (SYNTHGATE_KAFKA): Input should be a valid dictionary"),
        ("[kafka\n", "is no TOML: "),
        (b"\xff\xfe", "is no TOML: "),
    ],
)
def test_a_mistake_in_the_file_is_told(load: Load, toml: str | bytes, told: str) -> None:
    """With the setting's name, or the place where the file goes wrong."""
    assert told in load.refused(toml=toml)


def test_a_misspelt_secret_file_is_told(load: Load) -> None:
    """A secret that silently stays out would look like a wrong password."""
    message = load.refused(secrets={"rediss__password": "hidden"})
    assert "rediss__password is no setting of the worker; did you mean redis__...?" in message


def test_every_mistake_is_told_at_once(load: Load) -> None:
    """One line each."""
    message = load.refused({"SYNTHGATE_BATCH__MAX_IMAGES": "0", "SYNTHGATE_LOG__LEVEL": "loud"})
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
    found = load(
        SASL
        | {
            "SYNTHGATE_KAFKA__SASL_PASSWORD": SECRET,
            "SYNTHGATE_KAFKA__SSL_KEY_PASSWORD": SECRET,
            "SYNTHGATE_REDIS__PASSWORD": SECRET,
            "SYNTHGATE_FETCH__S3_ACCESS_KEY_ID": "AKIA",
            "SYNTHGATE_FETCH__S3_SECRET_ACCESS_KEY": SECRET,
        }
    )
    for text in (str(found), repr(found), found.model_dump_json(), str(found.model_dump())):
        assert SECRET not in text
    assert found.redis.password is not None
    assert found.redis.password.get_secret_value() == SECRET


def test_settings_are_frozen(load: Load) -> None:
    """What was validated at the start holds to the end."""
    found = load()
    with pytest.raises(ValidationError):
        found.batch.max_images = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        found.batch = Settings().batch  # type: ignore[misc]
