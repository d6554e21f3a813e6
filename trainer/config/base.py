"""What every part of the configuration shares: frozen, no unknown names, bounded numbers."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainer.errors import ConfigError

__all__ = ["ConfigError", "Count", "NotNegative", "Part", "Positive", "Share"]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Part(BaseModel):
    """A table of the configuration: frozen, without unknown options."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Options that were removed, with what to do instead.
    removed: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse_removed(cls, values: object) -> object:
        for name, advice in cls.removed.items():
            if isinstance(values, dict) and name in values:
                raise ValueError(f"{name} was removed: {advice}")
        return values
