"""TOML files into validated tables, whatever the table.

In: the bytes of a TOML file and the environment that its ``${NAME}`` values may refer to.
Out: a frozen, validated table. Errors: ``ConfigError``, which says what to do.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from trainer.config.base import Part
from trainer.errors import ConfigError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
Table = TypeVar("Table", bound=Part)


def read_toml(table: type[Table], path: Path, environment: Mapping[str, str]) -> Table:
    """Read a file; ``${CONFIG_FOLDER}`` in its strings is the directory that it is in."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): name a TOML file") from error
    data = data.replace(b"${CONFIG_FOLDER}", path.parent.as_posix().encode())
    return parse_toml(table, data, environment, str(path))


def parse_toml(
    table: type[Table], data: bytes, environment: Mapping[str, str], where: str
) -> Table:
    """Read a table; ``${NAME}`` in its strings is taken from the environment."""
    try:
        tree = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error
    try:
        return table.model_validate(_substituted(tree, environment, where))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in one['loc']) or 'the whole'}: {one['msg']}"
            for one in error.errors(include_url=False)
        )
        raise ConfigError(f"{where} is not valid: {problems}") from error


def _substituted(value: object, environment: Mapping[str, str], where: str) -> object:
    if isinstance(value, dict):
        return {key: _substituted(one, environment, where) for key, one in value.items()}
    if isinstance(value, list):
        return [_substituted(one, environment, where) for one in value]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environment:
            raise ConfigError(f"{where} refers to ${{{name}}}: set that environment variable")
        return environment[name]

    return _VARIABLE.sub(lookup, value)
