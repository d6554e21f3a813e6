"""Where the settings come from: the environment, secret files, a TOML file; and what is wrong with them.

Out: one frozen :class:`worker.settings.Settings`. Errors: :class:`SettingsError`, whose message names each bad
setting and what to do about it, and never its value.
"""

import difflib
import os
import tomllib
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from worker.settings import ENV_PREFIX, Settings

CONFIG_FILE_VARIABLE = "SYNTHGATE_CONFIG_FILE"
SECRETS_DIR_VARIABLE = "SYNTHGATE_SECRETS_DIR"


class SettingsError(Exception):
    """A setting is missing, unknown or out of range; the message says which and what to do."""


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
    _refuse_unknown_secrets(secrets_dir)

    class _Located(Settings):
        model_config = SettingsConfigDict(toml_file=config_file, secrets_dir=secrets_dir)

    try:
        return _Located()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error
    except SourceError as error:
        raise SettingsError(
            f"the settings cannot be read: {error}: a whole group is JSON; set its parts one by one, "
            f"as {ENV_PREFIX}KAFKA__GROUP_ID"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"config file {config_file} is no TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"the settings cannot be read: {error}") from error


def _path_from(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def _refuse_unknown_variables() -> None:
    """A misspelt group would silently leave its default in force, so it is an error."""
    own = {CONFIG_FILE_VARIABLE, SECRETS_DIR_VARIABLE}
    groups = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    for variable in os.environ:
        head = variable.split("__")[0]
        if variable.startswith(ENV_PREFIX) and head not in groups and variable not in own:
            near = difflib.get_close_matches(head, groups | own, n=1)
            hint = f"; did you mean {near[0]}{'' if near[0] in own else '__...'}?" if near else ""
            raise SettingsError(f"{variable} is no setting of the worker{hint}")


def _refuse_unknown_secrets(secrets_dir: Path | None) -> None:
    """A misspelt group would silently leave its secret out; files of other kinds may lie there too."""
    for path in sorted(secrets_dir.iterdir()) if secrets_dir is not None else ():
        group, delimiter, _ = path.name.lower().partition("__")
        if delimiter and not path.name.startswith(".") and group not in Settings.model_fields:
            near = difflib.get_close_matches(group, Settings.model_fields, n=1)
            hint = f"; did you mean {near[0]}__...?" if near else ""
            raise SettingsError(f"secret file {path} is no setting of the worker{hint}")


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
