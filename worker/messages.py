"""Render: an outcome in, the message for its topic out, and the one log line that tells of it.

Pure but for the clocks it is given. No payload, no signed URL and no secret enters a message or a line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from worker.cache import Published, StoredVerdict
from worker.dead_letter import Headers, dead_letter_headers, dead_letter_id, sendable_value
from worker.settings import Settings
from worker.types import Clock, Decided, Outcome, Rejected, ScoreKey
from worker.verdict import (
    ClassScore,
    LatencyMs,
    Media,
    Signals,
    Verdict,
    VerdictData,
    sortable_time,
    verdict_id,
)


@dataclass(frozen=True, slots=True)
class Message:
    """One record for a topic, and what goes into Redis once it is acknowledged there."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    published: Published


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message and what the log says once it is published."""

    outcome: Outcome
    message: Message
    log: dict[str, object]


class Renderer:
    """Writes verdicts and dead letters.

    Args:
        settings: Topics and source.
        verdict_topic: Where these verdicts go.
        clock: Monotonic seconds.
        now: The time of day, UTC.
    """

    def __init__(
        self, settings: Settings, verdict_topic: str, clock: Clock, now: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._verdict_topic = verdict_topic
        self._clock = clock
        self._now = now

    def render(self, outcome: Outcome) -> Rendered:
        """The message of an outcome, with its latencies measured until now."""
        if isinstance(outcome, Rejected):
            return self._dead_letter(outcome)
        return self.verdict(outcome)

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

    def verdict(self, decided: Decided) -> Rendered:
        """The verdict of a decision, in the name of the engine that scored."""
        scored = decided.scored
        event, engine = scored.fetched.event, scored.engine
        identity = verdict_id(event.source, event.event_id, engine.id, engine.mode)
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
            identity, event.content_id, document, data.event_time, engine.model.built_at
        )
        published = Published(
            identity,
            None if engine.mode == "shadow" else stored,
            None if scored.from_cache else ScoreKey(scored.fetched.sha256, engine.id),
            None if scored.from_cache else scored.score,
        )
        headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
        message = Message(
            self._verdict_topic,
            event.content_id.encode(),
            document,
            headers,
            published,
        )
        return Rendered(
            decided,
            message,
            self._place(decided) | {"engine": engine.id} | _verdict_log(data, scored.from_cache),
        )

    def _data(self, decided: Decided, identity: str) -> VerdictData:
        scored, decision = decided.scored, decided.decision
        event, score, engine = scored.fetched.event, scored.score, scored.engine
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
            model=engine.model,
            threshold_set_id=engine.thresholds.id,
            operating_fpr=engine.thresholds.review.fpr,
            calibration_id=engine.bundle.manifest.calibration.id,
            mode=engine.mode,
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
        }


def _verdict_log(data: VerdictData, from_cache: bool) -> dict[str, object]:  # noqa: FBT001 (a fact, not a switch)
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
        "score_cached": from_cache,
        "latency_ms": data.latency_ms.model_dump(),
    }
