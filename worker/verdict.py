"""Verdicts: the decision about an image, as a CloudEvent.

The id is a UUIDv5 of (source, event id, engine id, mode). So a redelivered event yields the same id, and consumers can
drop a second copy.
"""

import uuid
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

VERDICT_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "verdict.synthgate.io")

Band = Literal["allow", "review", "block"]
Mode = Literal["enforce", "shadow", "canary"]


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        # Every field is always written, so consumers may rely on all of them.
        json_schema_serialization_defaults_required=True,
    )


class Media(_Part):
    """The image that was read."""

    sha256: str
    mime: str
    width_px: int = Field(gt=0, description="after EXIF orientation")
    height_px: int = Field(gt=0, description="after EXIF orientation")
    bytes: int = Field(gt=0, description="encoded size")


class ClassScore(_Part):
    """The detector's score for one class."""

    class_name: Literal["ai_generated"] = Field("ai_generated", alias="class")
    score: float = Field(ge=0, le=1, description="P(AI-generated) after calibration")
    logit: float = Field(description="the detector's raw output, mean over the image's crops")


class Signals(_Part):
    """The signals behind the band; null for a signal that was not evaluated."""

    classifier: float = Field(ge=0, le=1)
    hash_match: bool | None = None
    provenance: str | None = None


class Model(_Part):
    """The detector that gave the score."""

    name: str
    version: str
    engine_sha256: str = Field(description="digest of the model file that ran")
    bundle_sha256: str = Field(description="digest of the bundle's manifest")
    precision: str
    runtime: str
    preprocess_version: str
    built_at: str = Field(description="ISO 8601, UTC: decides which engine is newer")


class LatencyMs(_Part):
    """Time spent in each stage, in milliseconds."""

    queued: float = Field(
        ge=0, description="from the record's timestamp until a worker received it"
    )
    fetch: float = Field(ge=0, description="fetching the bytes, all attempts")
    decode: float = Field(ge=0, description="decoding the bytes into crops")
    infer: float = Field(ge=0, description="waiting for a batch, and the engine")
    publish: float = Field(ge=0, description="from the decision until it is handed to the producer")
    total: float = Field(
        ge=0, description="from the record's timestamp until the verdict is handed to the producer"
    )


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
