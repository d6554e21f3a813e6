"""What every part of the configuration shares: frozen, no unknown names, bounded numbers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from trainer.errors import TrainerError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class ConfigError(TrainerError):
    """A configuration that cannot be used; the message says what to change."""


class Part(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
