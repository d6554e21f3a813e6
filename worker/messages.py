"""Messages: from an outcome to the record for its topic, and to the log line about it.

Pure except for the clocks. No payload, signed URL or secret enters a message or a log line.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from worker.cache import Published, StoredVerdict
from worker.dead_letter import Headers, dead_letter_headers, dead_letter_id, sendable_value
from worker.event import sortable_time
from worker.services import Clocks
from worker.settings import Settings
from worker.types import Decided, Outcome, Rejected, ScoreKey
from worker.verdict import (
    VERDICT_NAMESPACE,
    ClassScore,
    LatencyMs,
    Media,
    Signals,
    Verdict,
    VerdictData,
)


@dataclass(frozen=True, slots=True)
class Message:
    """One record for a topic, and what Redis keeps once the record is acknowledged."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    published: Published


@dataclass(frozen=True, slots=True)
class Rendered:
    """An outcome, its message, and the fields of its log line."""

    outcome: Outcome
    message: Message
    log: dict[str, object]


def verdict_id(source: str, event_id: str, engine_id: str, mode: str) -> str:
    """UUIDv5 of the parts that identify a verdict: a redelivered event gives the same id.

    Each part is prefixed with its length, so that different tuples never give the same name.
    """
    parts = (source, event_id, engine_id, mode)
    return str(uuid.uuid5(VERDICT_NAMESPACE, "".join(f"{len(part)}:{part}" for part in parts)))


class Renderer:
    """Renders verdicts and dead letters.

    Args:
        settings: Topics and source.
        verdict_topic: The topic of these verdicts.
        clocks: Time.
    """

    def __init__(self, settings: Settings, verdict_topic: str, clocks: Clocks) -> None:
        self._settings = settings
        self._verdict_topic = verdict_topic
        self._clocks = clocks

    def render(self, outcome: Outcome) -> Rendered:
        """The message of an outcome, with its latencies measured until now."""
        if isinstance(outcome, Rejected):
            return self._dead_letter(outcome)
        return self.verdict(outcome)

    def verdict(self, decided: Decided) -> Rendered:
        """The verdict about an image, in the name of the engine that scored it."""
        upload, engine = decided.image.upload, decided.engine
        identity = verdict_id(upload.source, upload.event_id, engine.id, engine.mode)
        data = self._data(decided, identity)
        verdict = Verdict(
            id=identity,
            source=self._settings.decide.source,
            subject=upload.content_id,
            time=data.decided_at,
            data=data,
        )
        document = verdict.model_dump_json(by_alias=True).encode()
        stored = StoredVerdict(
            identity, upload.content_id, document, data.event_time, engine.model.built_at
        )
        published = Published(
            identity,
            None if engine.mode == "shadow" else stored,
            None if decided.from_cache else ScoreKey(decided.image.sha256, engine.id),
            None if decided.from_cache else decided.score,
        )
        headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
        message = Message(
            self._verdict_topic, upload.content_id.encode(), document, headers, published
        )
        log = _origin(decided) | {"engine": engine.id} | _verdict_log(data, decided)
        return Rendered(decided, message, log)

    def _data(self, decided: Decided, identity: str) -> VerdictData:
        upload, engine = decided.image.upload, decided.engine
        score, decision = decided.score, decided.decision
        return VerdictData(
            content_id=upload.content_id,
            event_id=upload.event_id,
            event_time=sortable_time(upload.event_time),
            media=Media(
                sha256=decided.image.sha256,
                mime=score.mime,
                width_px=score.width_px,
                height_px=score.height_px,
                bytes=decided.image.size_bytes,
            ),
            scores=(ClassScore(score=decision.probability, logit=score.logit),),
            band=decision.band,
            reasons=decision.reasons,
            signals=Signals(classifier=decision.probability),
            model=engine.model,
            threshold_set_id=engine.thresholds.id,
            operating_fpr=engine.thresholds.review.fpr,
            calibration_id=engine.bundle.manifest.calibration.id,
            mode=engine.mode,
            latency_ms=self._latency(decided),
            decided_at=datetime.fromtimestamp(self._clocks.wall(), tz=UTC),
            # Without a trace of the sender, the verdict's own id connects log, topic and Redis.
            trace_id=upload.trace_id or identity.replace("-", ""),
        )

    def _latency(self, decided: Decided) -> LatencyMs:
        timings = decided.event.timings
        now_s = self._clocks.monotonic()
        return LatencyMs(
            queued=round(timings.queued_ms, 3),
            fetch=round(timings.fetch_ms, 3),
            decode=round(timings.decode_ms, 3),
            infer=round(timings.infer_ms, 3),
            publish=round((now_s - decided.decided_at_s) * 1000, 3),
            total=round(timings.queued_ms + (now_s - timings.received_at_s) * 1000, 3),
        )

    def _dead_letter(self, rejected: Rejected) -> Rendered:
        record, upload = rejected.event.record, rejected.upload
        message = Message(
            self._settings.kafka.dead_letter_topic,
            record.key,
            sendable_value(record),
            dead_letter_headers(rejected),
            Published(dead_letter_id(record)),
        )
        log = _origin(rejected) | {
            "event_id": upload.event_id if upload else None,
            "content_id": upload.content_id if upload else None,
            "stage": rejected.stage,
            "code": rejected.code,
            "error": rejected.message,
            "attempts": rejected.attempts,
        }
        return Rendered(rejected, message, log)


def _origin(outcome: Outcome) -> dict[str, object]:
    """Where the record came from."""
    record = outcome.event.record
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}


def _verdict_log(data: VerdictData, decided: Decided) -> dict[str, object]:
    return {
        "event_id": data.event_id,
        "content_id": data.content_id,
        "trace_id": data.trace_id,
        "sha256": data.media.sha256,
        "mode": data.mode,
        "band": data.band,
        "score": round(data.scores[0].score, 6),
        "logit": round(data.scores[0].logit, 6),
        "reasons": list(data.reasons),
        "score_cached": decided.from_cache,
        "latency_ms": data.latency_ms.model_dump(),
    }
