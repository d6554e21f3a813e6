"""Outcomes become messages and log lines: the contract's fields, and no secret in either."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engines.bundle.verify import Bundle, load_bundle
from tests.support.bundles import make_tiny_bundle
from tests.unit.worker.samples import TRACE_ID, decided, event, record, rejected
from tests.unit.worker.services import never
from worker.dead_letter import dead_letter_headers, dead_letter_id
from worker.engine import Engine, engine_id, make_engine
from worker.messages import Renderer, verdict_id
from worker.services import Clocks
from worker.settings import Settings
from worker.types import ScoreKey
from worker.verdict import Mode, Verdict

NOW = datetime(2026, 2, 2, 2, 41, tzinfo=UTC)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """The tiny bundle, loaded."""
    loaded = load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle")))
    yield loaded
    loaded.runtime.close()


def make_renderer(verdict_topic: str = "images.verdicts") -> Renderer:
    """A renderer at second 101, 02:41."""
    return Renderer(Settings(), verdict_topic, Clocks(lambda: 101.0, NOW.timestamp, never))


def engine_of(bundle: Bundle, mode: Mode = "enforce") -> Engine:
    """The bundle's engine, whose verdicts say that mode."""
    return make_engine(bundle, "deciding", mode, None)


def test_a_verdict_is_the_contracts_cloudevent(bundle: Bundle) -> None:
    """Every field of the contract, with the values of this image, this engine and this moment."""
    found = make_renderer().render(decided(engine_of(bundle)))
    assert (found.message.topic, found.message.key) == ("images.verdicts", b"content-1")
    assert found.message.headers == [
        ("content-type", b"application/cloudevents+json; charset=utf-8")
    ]
    document = json.loads(found.message.value or b"")
    data = document.pop("data")
    identity = verdict_id("/uploads", "event-1", engine_id(bundle), "enforce")
    assert document == {
        "specversion": "1.0",
        "id": identity,
        "source": "/synthgate/worker",
        "type": "io.synthgate.image.verdict.v1",
        "subject": "content-1",
        "time": "2026-02-02T02:41:00Z",
        "datacontenttype": "application/json",
    }
    assert data.pop("model") == {
        "name": "tiny",
        "version": "0.1.0",
        "engine_sha256": hashlib.sha256((bundle.directory / "model.onnx").read_bytes()).hexdigest(),
        "bundle_sha256": bundle.sha256,
        "precision": "fp32",
        "runtime": "onnxruntime-cpu",
        "preprocess_version": bundle.manifest.preprocess.version,
        "built_at": "2026-01-31T12:00:00.000000Z",
    }
    assert data == {
        "content_id": "content-1",
        "event_id": "event-1",
        "event_time": "2026-02-02T02:40:00.000000Z",
        "media": {
            "sha256": "ab" * 32,
            "mime": "image/jpeg",
            "width_px": 64,
            "height_px": 48,
            "bytes": 1234,
        },
        "scores": [{"class": "ai_generated", "score": 0.75, "logit": 1.25}],
        "band": "review",
        "reasons": ["classifier_above_review_threshold"],
        "signals": {"classifier": 0.75, "hash_match": None, "provenance": None},
        "threshold_set_id": "default",
        "operating_fpr": 0.1,
        "calibration_id": "platt-test",
        "mode": "enforce",
        "latency_ms": {
            "queued": 5.0,
            "fetch": 12.0,
            "decode": 3.0,
            "infer": 4.0,
            "publish": 500.0,
            "total": 1005.0,
        },
        "decided_at": "2026-02-02T02:41:00Z",
        "trace_id": identity.replace("-", ""),
    }


def test_a_verdict_can_be_read_back(bundle: Bundle) -> None:
    """The model that wrote it reads it."""
    value = make_renderer().render(decided(engine_of(bundle))).message.value or b""
    assert Verdict.model_validate_json(value).model_dump_json(by_alias=True).encode() == value


def test_the_senders_trace_goes_on(bundle: Bundle) -> None:
    """Where the event has a trace id, the verdict and the log carry it."""
    found = make_renderer().render(decided(engine_of(bundle), image_event=event(trace_id=TRACE_ID)))
    assert json.loads(found.message.value or b"")["data"]["trace_id"] == TRACE_ID
    assert found.log["trace_id"] == TRACE_ID


def test_a_redelivered_event_gives_the_same_id(bundle: Bundle) -> None:
    """Even when the second time its score comes from the cache; another mode is another verdict."""
    fresh = make_renderer().render(decided(engine_of(bundle)))
    again = make_renderer().render(decided(engine_of(bundle), from_cache=True))
    shadow = make_renderer().render(decided(engine_of(bundle, "shadow")))
    assert fresh.message.published.id == again.message.published.id
    assert fresh.message.published.id != shadow.message.published.id


def test_what_redis_keeps_goes_along(bundle: Bundle) -> None:
    """The verdict's document with its two times; the score only where it is new."""
    fresh = make_renderer().render(decided(engine_of(bundle))).message
    stored = fresh.published.verdict
    assert stored is not None
    assert (stored.id, stored.content_id) == (fresh.published.id, "content-1")
    assert stored.document == fresh.value
    assert stored.event_time == "2026-02-02T02:40:00.000000Z"
    assert stored.built_at == "2026-01-31T12:00:00.000000Z"
    assert (fresh.published.score_key, fresh.published.score) == (
        ScoreKey("ab" * 32, engine_id(bundle)),
        decided(engine_of(bundle)).score,
    )
    cached = make_renderer().render(decided(engine_of(bundle), from_cache=True)).message.published
    assert (cached.score_key, cached.score) == (None, None)


def test_a_shadow_verdict_is_not_the_contents_verdict(bundle: Bundle) -> None:
    """It goes to the shadow's topic, never to Redis."""
    found = make_renderer("shadows").render(decided(engine_of(bundle, "shadow"))).message
    assert (found.topic, found.published.verdict) == ("shadows", None)
    assert json.loads(found.value or b"")["data"]["mode"] == "shadow"


def test_a_dead_letter_is_the_record_with_its_reason(bundle: Bundle) -> None:
    """Key and value untouched, to the dead-letter topic, marked under its own id."""
    source = record(b"\xff broken", headers=[("ce_id", b"1")])
    outcome = rejected(source)
    message = make_renderer().render(outcome).message
    assert (message.topic, message.key, message.value) == (
        "images.uploaded.DLT",
        b"content-1",
        b"\xff broken",
    )
    assert message.headers == dead_letter_headers(outcome)
    assert message.published.id == dead_letter_id(source)
    assert message.published.verdict is None


def test_a_record_without_key_and_value_still_becomes_a_dead_letter(bundle: Bundle) -> None:
    """With an empty value, since a record needs one of the two."""
    message = make_renderer().render(rejected(record(None, key=None))).message
    assert (message.key, message.value) == (None, b"")


def test_the_log_line_tells_where_and_what(bundle: Bundle) -> None:
    """Enough to find the record and the verdict; no payload and no signed address."""
    verdict = make_renderer().render(decided(engine_of(bundle), from_cache=True)).log
    assert (verdict["topic"], verdict["partition"], verdict["offset"]) == ("images.uploaded", 2, 7)
    assert (verdict["band"], verdict["score"], verdict["score_cached"]) == ("review", 0.75, True)
    poison = make_renderer().render(rejected(record(b"secret payload"), upload=event())).log
    assert (poison["stage"], poison["code"], poison["event_id"]) == (
        "decode",
        "truncated",
        "event-1",
    )
    for log in (verdict, poison):
        text = json.dumps(log)
        assert "signature=hidden" not in text
        assert "payload" not in text


def test_engines_are_told_apart_by_bundle_and_runtime(bundle: Bundle, tmp_path: Path) -> None:
    """A score is never used for another engine."""
    other = load_bundle(make_tiny_bundle(tmp_path / "other", version="0.1.1"))
    assert engine_id(bundle) == f"{bundle.sha256[:32]}-onnxruntime-cpu-fp32"
    assert engine_id(other) != engine_id(bundle)
