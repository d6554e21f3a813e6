"""The verdict: what was decided about an image, written as a CloudEvent.

In: the event, the score and the decision. Out: a :class:`Verdict` and its JSON.
The id is a UUIDv5 of (source, event id, engine id, mode), so a redelivered event yields the same id and
whoever reads verdicts can drop a second copy by id alone.
"""

import uuid
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

VERDICT_TYPE = "io.synthgate.image.verdict.v1"
VERDICT_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "verdict.synthgate.io")

Band = Literal["allow", "review", "block"]
Mode = Literal["enforce", "shadow", "canary"]


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        # Every field is always written, so its readers may count on each.
        json_schema_serialization_defaults_required=True,
    )


class Media(_Part):
    """The image as it was read."""

    sha256: str
    mime: str
    width_px: int = Field(gt=0, description="after EXIF orientation")
    height_px: int = Field(gt=0, description="after EXIF orientation")
    bytes: int = Field(gt=0, description="encoded size")


class ClassScore(_Part):
    """One class and how sure the detector is."""

    class_name: Literal["ai_generated"] = Field("ai_generated", alias="class")
    score: float = Field(ge=0, le=1, description="P(AI-generated) after calibration")
    logit: float = Field(description="the detector's raw output, mean over the image's crops")


class Signals(_Part):
    """What the band rests on; null where the signal was not looked for."""

    classifier: float = Field(ge=0, le=1)
    hash_match: bool | None = None
    provenance: str | None = None


class Model(_Part):
    """Which detector spoke."""

    name: str
    version: str
    engine_sha256: str = Field(description="digest of the model file that ran")
    bundle_sha256: str = Field(description="digest of the bundle's manifest")
    precision: str
    runtime: str
    preprocess_version: str
    built_at: str = Field(description="ISO 8601, UTC: decides which engine is the newer")


class LatencyMs(_Part):
    """Where the time went, in milliseconds."""

    queued: float = Field(ge=0, description="from the record's timestamp until a worker took it")
    fetch: float = Field(ge=0, description="getting the bytes, all attempts")
    decode: float = Field(ge=0, description="bytes to crops")
    infer: float = Field(ge=0, description="waiting for a batch, and the engine")
    publish: float = Field(ge=0, description="from the decision until it is handed to the producer")
    total: float = Field(ge=0, description="from the record's timestamp until then")


class VerdictData(_Part):
    """The ``data`` of a verdict."""

    content_id: str
    event_id: str
    event_time: str = Field(description="ISO 8601, UTC, microseconds: decides which event is newer")
    media: Media
    scores: tuple[ClassScore, ...]
    band: Band
    reasons: tuple[str, ...]
    signals: Signals
    model: Model
    threshold_set_id: str
    operating_fpr: float = Field(
        ge=0, le=1, description="measured false-positive rate at the review threshold"
    )
    calibration_id: str
    mode: Mode
    latency_ms: LatencyMs
    decided_at: datetime
    trace_id: str


class Verdict(_Part):
    """A CloudEvent of type ``io.synthgate.image.verdict.v1`` in structured mode."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: Literal["io.synthgate.image.verdict.v1"] = "io.synthgate.image.verdict.v1"
    subject: str = Field(description="the content id")
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    data: VerdictData

    def to_json(self) -> bytes:
        """The CloudEvent as UTF-8 JSON."""
        return self.model_dump_json(by_alias=True).encode()


def verdict_id(source: str, event_id: str, engine_id: str, mode: str) -> str:
    """UUIDv5 of what makes two verdicts the same one.

    The parts are joined by their lengths, so that no two different tuples give the same name.
    """
    parts = (source, event_id, engine_id, mode)
    return str(uuid.uuid5(VERDICT_NAMESPACE, "".join(f"{len(part)}:{part}" for part in parts)))


def sortable_time(moment: datetime) -> str:
    """UTC with microseconds, fixed width: compares as text the way the moments do."""
    # Not strftime: its %Y has no leading zeros, so year 999 would sort after year 2026.
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
