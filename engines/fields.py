"""The kinds of value that a manifest is made of, each with what it refuses."""

from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _plain(path: str) -> str:
    """Refuses a path that could lead outside the bundle or be written in two ways."""
    pure = PurePosixPath(path)
    plain = pure.as_posix() == path and "\\" not in path and "\0" not in path
    if not plain or pure.is_absolute() or ".." in pure.parts or path == ".":
        raise ValueError(f"{path!r} is not a plain relative path inside the bundle")
    return path


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("the time needs a time zone, for instance 2026-01-31T12:00:00Z")
    return moment.astimezone(UTC)


BundlePath = Annotated[str, Field(min_length=1), AfterValidator(_plain)]
UtcTime = Annotated[datetime, AfterValidator(_utc)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
Semver = Annotated[
    str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$")
]
Fraction = Annotated[float, Field(ge=0, le=1)]
Mean3 = tuple[Fraction, Fraction, Fraction]
Positive = Annotated[float, Field(gt=0)]
Std3 = tuple[Positive, Positive, Positive]
ConfigValue = str | int | float | bool | None


class Part(BaseModel):
    """The rules of every part: frozen, no unknown key, no number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
