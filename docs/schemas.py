"""JSON Schemas of the two contracts: the image event and the verdict.

In: the pydantic models that the worker reads events and writes verdicts with. Out: the schemas, for senders of
events and readers of verdicts in any language.
"""

from collections.abc import Mapping

from worker.event import ImageUploaded
from worker.verdict import Verdict

DIALECT = "https://json-schema.org/draft/2020-12/schema"
EVENT_SCHEMA = "image-event.v1.json"
VERDICT_SCHEMA = "image-verdict.v1.json"


def schemas() -> dict[str, dict[str, object]]:
    """Return the schemas by file name."""
    event = ImageUploaded.model_json_schema(by_alias=True, mode="validation")
    verdict = Verdict.model_json_schema(by_alias=True, mode="serialization")
    return {
        EVENT_SCHEMA: _complete(EVENT_SCHEMA, event | _exactly_one_image()),
        VERDICT_SCHEMA: _complete(VERDICT_SCHEMA, verdict),
    }


def _complete(name: str, schema: Mapping[str, object]) -> dict[str, object]:
    header = {"$schema": DIALECT, "$id": f"https://synthgate.io/schemas/{name}"}
    return _without_closed_objects({**header, **schema})


def _without_closed_objects(schema: Mapping[str, object]) -> dict[str, object]:
    """Drop ``additionalProperties``, so that a field added later breaks no present reader."""
    return {
        key: _converted(value) for key, value in schema.items() if key != "additionalProperties"
    }


def _converted(value: object) -> object:
    if isinstance(value, Mapping):
        return _without_closed_objects(value)
    if isinstance(value, list):
        return [_converted(element) for element in value]
    return value.replace("``", "`") if isinstance(value, str) else value


def _exactly_one_image() -> dict[str, object]:
    """What :func:`worker.event.parse_event` requires beyond the types: a uri or bytes, in one place."""
    text = {"type": "string", "minLength": 1}
    at_top = {"required": ["data_base64"], "properties": {"data_base64": text}}
    in_data = [
        {
            "required": ["data"],
            "properties": {
                "data": {"type": "object", "required": [name], "properties": {name: text}}
            },
        }
        for name in ("uri", "data_base64")
    ]
    return {"oneOf": [at_top, *in_data]}
