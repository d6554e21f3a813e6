"""JSON lines on disk -> checked models, and back.

In: a file with an object a line. Out: pydantic models. Errors: ``DataError``, which names the line.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from trainer.data.errors import DataError

Line = TypeVar("Line", bound=BaseModel)


def read_lines(path: Path, kind: type[Line], advice: str) -> list[Line]:
    """Every line of a file.

    Args:
        path: the file.
        kind: what each line is.
        advice: what to do where it is not, or where there is no file.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): {advice}") from error
    return [
        _checked(line, kind, f"{path}, line {number}", advice)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]


def _checked(line: str, kind: type[Line], where: str, advice: str) -> Line:
    try:
        return kind.model_validate(json.loads(line))
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON ({error}): {advice}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in one['loc']) or 'the whole'}: {one['msg']}"
            for one in error.errors(include_url=False)
        )
        raise DataError(f"{where}: {problems}: {advice}") from error


def write_lines(path: Path, lines: Iterable[BaseModel]) -> None:
    """Write a file, whole or not at all; what is None is left out."""
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(
        "".join(f"{one.model_dump_json(by_alias=True, exclude_none=True)}\n" for one in lines)
    )
    partial.replace(path)
