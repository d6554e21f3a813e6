"""What every part of the configuration shares: frozen, no unknown names, bounded numbers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from trainer.errors import ConfigError

__all__ = ["ConfigError", "Count", "NotNegative", "Part", "Positive", "Share"]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Part(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
