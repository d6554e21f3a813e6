"""JSON Schemas of the two contracts: ``python -m worker.schemas docs/reference/schemas``.

In: the models that read and write them. Out: ``image-event.v1.json`` and ``image-verdict.v1.json``, for whoever
sends events or reads verdicts in another language.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from worker.event_models import ImageUploaded
from worker.verdict import Verdict

DIALECT = "https://json-schema.org/draft/2020-12/schema"
EXIT_USAGE = 2


def schemas() -> dict[str, dict[str, object]]:
    """File names, and the schema of each."""
    event = ImageUploaded.model_json_schema(by_alias=True, mode="validation")
    verdict = Verdict.model_json_schema(by_alias=True, mode="serialization")
    return {
        "image-event.v1.json": _complete("image-event.v1.json", event | _exactly_one_image()),
        "image-verdict.v1.json": _complete("image-verdict.v1.json", verdict),
    }


def write_schemas(directory: Path) -> None:
    """Write every schema into the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        (directory / name).write_text(text, encoding="utf-8")


def _complete(name: str, schema: Mapping[str, object]) -> dict[str, object]:
    told = {"$schema": DIALECT, "$id": f"https://synthgate.io/schemas/{name}", **schema}
    return _opened_mapping(told)


def _opened_mapping(part: Mapping[str, object]) -> dict[str, object]:
    """The same schema without ``additionalProperties``: a field that is added later breaks no reader of now."""
    return {key: _opened(value) for key, value in part.items() if key != "additionalProperties"}


def _opened(value: object) -> object:
    if isinstance(value, Mapping):
        return _opened_mapping(value)
    if isinstance(value, list):
        return [_opened(part) for part in value]
    return value.replace("``", "`") if isinstance(value, str) else value


def _exactly_one_image() -> dict[str, object]:
    """What :func:`worker.event.parse_event` asks for beyond the types: a uri or bytes, in one place."""
    text = {"type": "string", "minLength": 1}
    on_top = {"required": ["data_base64"], "properties": {"data_base64": text}}
    in_data = [
        {
            "required": ["data"],
            "properties": {
                "data": {"type": "object", "required": [name], "properties": {name: text}}
            },
        }
        for name in ("uri", "data_base64")
    ]
    return {"oneOf": [on_top, *in_data]}


def main(arguments: Sequence[str]) -> int:
    """Write them into the one directory named; returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m worker.schemas DIRECTORY\n")
        return EXIT_USAGE
    write_schemas(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
