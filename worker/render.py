"""Render: an outcome in, the message for its topic out, and the one log line that tells of it.

Pure but for the clocks it is given. No payload, no signed URL and no secret enters a message or a line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from engines.verify import Bundle
from worker.cache import Published, StoredVerdict
from worker.dead_letter import dead_letter_headers, dead_letter_id, sendable_value
from worker.publish import Message
from worker.settings import Settings
from worker.verdict import (
    ClassScore,
    LatencyMs,
    Media,
    Model,
    Signals,
    Verdict,
    VerdictData,
    sortable_time,
    verdict_id,
)
from worker.work import Clock, Decided, Outcome, Rejected


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message and what the log says once it is published."""

    outcome: Outcome
    message: Message
    log: dict[str, object]


def engine_id(bundle: Bundle) -> str:
    """What tells one engine's scores from another's: the whole bundle and the runtime."""
    return f"{bundle.sha256[:32]}-{bundle.runtime.name}-{bundle.runtime.precision}"


class Renderer:
    """Writes verdicts and dead letters.

    Args:
        settings: Topics, mode, source.
        bundle: The engine, its calibration and thresholds.
        clock: Monotonic seconds.
        now: The time of day, UTC.
    """

    def __init__(
        self, settings: Settings, bundle: Bundle, clock: Clock, now: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._now = now
        self._engine_id = engine_id(bundle)
        self._thresholds = bundle.manifest.threshold_set(settings.decide.threshold_set)
        self._calibration_id = bundle.manifest.calibration.id
        self._model = Model(
            name=bundle.manifest.name,
            version=bundle.manifest.version,
            engine_sha256=bundle.runtime.engine_sha256,
            bundle_sha256=bundle.sha256,
            precision=bundle.runtime.precision,
            runtime=bundle.runtime.name,
            preprocess_version=bundle.manifest.preprocess.version,
            built_at=sortable_time(bundle.manifest.created_at),
        )

    def render(self, outcome: Outcome) -> Rendered:
        """The message of an outcome, with its latencies measured until now."""
        if isinstance(outcome, Rejected):
            return self._dead_letter(outcome)
        return self._verdict(outcome)

    def _dead_letter(self, rejected: Rejected) -> Rendered:
        record = rejected.taken.record
        message = Message(
            self._settings.kafka.dead_letter_topic,
            record.key,
            sendable_value(record),
            dead_letter_headers(rejected),
            Published(dead_letter_id(record)),
        )
        log = self._place(rejected) | {
            "event_id": rejected.event.event_id if rejected.event else None,
            "content_id": rejected.event.content_id if rejected.event else None,
            "stage": rejected.stage,
            "code": rejected.code,
            "error": rejected.message,
            "attempts": rejected.attempts,
        }
        return Rendered(rejected, message, log)

    def _verdict(self, decided: Decided) -> Rendered:
        event = decided.scored.fetched.event
        mode = self._settings.decide.mode
        identity = verdict_id(event.source, event.event_id, self._engine_id, mode)
        data = self._data(decided, identity)
        verdict = Verdict(
            id=identity,
            source=self._settings.decide.source,
            subject=event.content_id,
            time=data.decided_at,
            data=data,
        )
        document = verdict.to_json()
        stored = StoredVerdict(
            identity, event.content_id, document, data.event_time, self._model.built_at
        )
        scored = decided.scored
        published = Published(
            identity,
            None if mode == "shadow" else stored,
            None if scored.from_cache else scored.fetched.sha256,
            None if scored.from_cache else scored.score,
        )
        headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
        message = Message(
            self._settings.kafka.verdict_topic,
            event.content_id.encode(),
            document,
            headers,
            published,
        )
        return Rendered(
            decided, message, self._place(decided) | _verdict_log(data, scored.from_cache)
        )

    def _data(self, decided: Decided, identity: str) -> VerdictData:
        scored, decision = decided.scored, decided.decision
        event, score = scored.fetched.event, scored.score
        return VerdictData(
            content_id=event.content_id,
            event_id=event.event_id,
            event_time=sortable_time(event.event_time),
            media=Media(
                sha256=scored.fetched.sha256,
                mime=score.mime,
                width_px=score.width_px,
                height_px=score.height_px,
                bytes=scored.fetched.size_bytes,
            ),
            scores=(ClassScore(score=decision.probability, logit=score.logit),),
            band=decision.band,
            reasons=decision.reasons,
            signals=Signals(classifier=decision.probability),
            model=self._model,
            threshold_set_id=self._thresholds.id,
            operating_fpr=self._thresholds.review.fpr,
            calibration_id=self._calibration_id,
            mode=self._settings.decide.mode,
            latency_ms=self._latency(decided),
            decided_at=self._now(),
            # Without a trace of the sender's, the verdict's own id ties log, topic and Redis together.
            trace_id=event.trace_id or identity.replace("-", ""),
        )

    def _latency(self, decided: Decided) -> LatencyMs:
        scored = decided.scored
        taken = scored.fetched.taken
        now_s = self._clock()
        return LatencyMs(
            queued=round(taken.queued_ms, 3),
            fetch=round(scored.fetched.fetch_ms, 3),
            decode=round(scored.decode_ms, 3),
            infer=round(scored.infer_ms, 3),
            publish=round((now_s - decided.decided_at_s) * 1000, 3),
            total=round(taken.queued_ms + (now_s - taken.taken_at_s) * 1000, 3),
        )

    def _place(self, outcome: Outcome) -> dict[str, object]:
        taken = outcome.taken if isinstance(outcome, Rejected) else outcome.scored.fetched.taken
        record = taken.record
        return {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "engine": self._engine_id,
        }


def _verdict_log(data: VerdictData, from_cache: bool) -> dict[str, object]:  # noqa: FBT001 (a fact, not a switch)
    return {
        "event_id": data.event_id,
        "content_id": data.content_id,
        "trace_id": data.trace_id,
        "sha256": data.media.sha256,
        "band": data.band,
        "score": round(data.scores[0].score, 6),
        "logit": round(data.scores[0].logit, 6),
        "reasons": list(data.reasons),
        "score_cached": from_cache,
        "latency_ms": data.latency_ms.model_dump(),
    }
