"""The page of all settings: ``python -m worker.settings_docs docs/reference/settings.md``.

In: the settings' models, with their defaults and descriptions. Out: one Markdown page, a table a group.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from worker.settings import ENV_PREFIX, REFERENCE_KEY, Settings
from worker.settings_sources import CONFIG_FILE_VARIABLE, SECRETS_DIR_VARIABLE

EXIT_USAGE = 2
INTRODUCTION = f"""\
# Settings of the worker

<!-- Written by `python -m worker.settings_docs docs/reference/settings.md`: change the models, then run it again. -->

Each setting may come from four places; the first that has it wins.

1. **The environment**: the variable in the table. Lists are words with commas between them.
2. **Secret files**: in the directory that `{SECRETS_DIR_VARIABLE}` names, one file a setting, named by group and
   setting (`redis__password`). This is how Kubernetes mounts a secret.
3. **A TOML file**: the one that `--config` or `{CONFIG_FILE_VARIABLE}` names, with a table a group (`[kafka]`).
4. **The default**.

`python -m worker check-config` prints the settings in force, with secrets masked. A name that no setting has, a
value out of range and a file that does not exist stop the worker before it starts, with a message that says what
to do. Settings marked *secret* are shown by no command, log line or error.
"""


def settings_page() -> str:
    """The whole page, in Markdown."""
    lines = [INTRODUCTION]
    for group, info in Settings.model_fields.items():
        model = info.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"the group {group} is no model")
        lines += [f"## {group}\n", f"{(model.__doc__ or '').strip()}\n"]
        lines += ["| Setting | Environment variable | Default | Meaning |", "|---|---|---|---|"]
        lines += list(_rows(group, model))
        lines.append("")
    return "\n".join(lines)


def _rows(group: str, model: type[BaseModel]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        variable = f"{ENV_PREFIX}{group}__{name}".upper()
        cells = (f"`{name}`", f"`{variable}`", _default(info), _meaning(info))
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _default(info: FieldInfo) -> str:
    value = info.default
    if value is None or value == ():
        return "(none)"
    if value == (REFERENCE_KEY,):
        return "the reference bundle's own key, `engines/bundles/reference.pub.pem`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(info: FieldInfo) -> str:
    kinds = _kinds(info.annotation)
    choices = [
        str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)
    ]
    notes = [info.description or ""]
    if choices:
        notes.append("one of " + ", ".join(f"`{choice}`" for choice in choices))
    if SecretStr in kinds:
        notes[0] = notes[0].removesuffix(" (secret)")
        notes.append("*secret*")
    return "; ".join(notes)


def _kinds(annotation: object) -> tuple[object, ...]:
    if get_origin(annotation) in (Union, UnionType):
        return tuple(kind for kind in get_args(annotation) if kind is not NoneType)
    return (annotation,)


def main(arguments: Sequence[str]) -> int:
    """Write the page to the one path named; returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m worker.settings_docs PATH\n")
        return EXIT_USAGE
    Path(arguments[0]).write_text(settings_page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
