"""The published schemas are the code's, and agree with it on real events and verdicts."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types

from engines.bundle.verify import Bundle, load_bundle
from tests.support.bundles import make_tiny_bundle
from tests.unit.worker.samples import TRACEPARENT, base64_text, cloudevent, decided, structured
from tests.unit.worker.test_messages import engine_of, make_renderer
from worker.errors import Poison
from worker.event import parse_event

DOCS = Path(__file__).parents[3] / "docs" / "reference" / "schemas"
URI = {"content_id": "c", "uri": "https://h/1"}
INLINE = {"content_id": "c", "data_base64": base64_text(b"image")}


def validator(name: str) -> Draft202012Validator:
    """The validator of a published file."""
    schema = json.loads((DOCS / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize(
    "document",
    [
        cloudevent(URI),
        cloudevent(INLINE),
        cloudevent(URI | {"sha256": "AB" * 32, "mime": "image/png", "uploaded_at": None}),
        cloudevent(URI | {"later": "field"}, time="2026-02-02T02:40:00Z", traceparent=TRACEPARENT),
        cloudevent({"content_id": "c"}, data_base64="aaaa"),
        cloudevent(URI | {"data_base64": None}, data_base64=None),
        {**cloudevent(subject="c", data_base64="aaaa"), "data": None},
    ],
)
def test_both_accept_a_good_event(document: dict[str, object]) -> None:
    """What the schema promises a sender, the worker keeps."""
    validator("image-event.v1.json").validate(document)
    assert parse_event(structured(document)).event_id == "event-1"


@pytest.mark.parametrize(
    "document",
    [
        {},
        cloudevent(URI, id=""),
        cloudevent(URI, id=7),
        cloudevent(URI, specversion="0.3"),
        cloudevent(URI, type="other"),
        cloudevent(URI, source=None),
        cloudevent({"uri": "https://h/1"}),
        cloudevent(URI | {"content_id": "a\x00b"}),
        cloudevent(URI | {"content_id": "x" * 513}),
        cloudevent(URI | {"uri": ""}),
        cloudevent(URI | {"sha256": "abc"}),
        cloudevent({"content_id": "c"}),
        cloudevent({"content_id": "c", "data_base64": ""}),
        cloudevent(URI | {"data_base64": "aaaa"}),
        cloudevent(URI, data_base64="aaaa"),
        cloudevent(INLINE, data_base64="aaaa"),
        cloudevent(URI, time=7),
    ],
)
def test_both_refuse_a_bad_event(document: dict[str, object]) -> None:
    """What the worker would dead-letter, a sender can find out beforehand."""
    assert not validator("image-event.v1.json").is_valid(document)
    with pytest.raises(Poison):
        parse_event(structured(document))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """The tiny bundle, loaded."""
    loaded = load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle")))
    yield loaded
    loaded.runtime.close()


@pytest.fixture
def verdict(bundle: Bundle) -> dict[str, object]:
    """A verdict as it goes to the topic."""
    found = json.loads(make_renderer().render(decided(engine_of(bundle))).message.value or b"")
    assert isinstance(found, dict)
    return found


def test_a_real_verdict_is_valid(verdict: dict[str, object]) -> None:
    """Also with a field that a later release may add."""
    checks = validator("image-verdict.v1.json")
    checks.validate(verdict)
    checks.validate(verdict | {"later": "field"})


def test_every_field_of_a_verdict_is_promised(verdict: dict[str, object]) -> None:
    """Whatever a verdict holds is required by the schema, at every level."""
    checks = validator("image-verdict.v1.json")

    def without_each(part: object) -> Iterator[str]:
        if isinstance(part, dict):
            for name in list(part):
                kept = part.pop(name)
                if checks.is_valid(verdict):
                    yield name
                part[name] = kept
                yield from without_each(kept)
        elif isinstance(part, list):
            for each in part:
                yield from without_each(each)

    assert list(without_each(verdict)) == []


@pytest.mark.parametrize(
    ("field", "value"), [("band", "maybe"), ("mode", "dry"), ("operating_fpr", 2), ("scores", [7])]
)
def test_impossible_values_are_not_valid(
    verdict: dict[str, object], field: str, value: object
) -> None:
    """The schema is not merely a list of names."""
    data = verdict["data"]
    assert isinstance(data, dict)
    data[field] = value
    assert not validator("image-verdict.v1.json").is_valid(verdict)
