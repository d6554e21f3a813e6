"""The parts of a manifest that were measured: calibration, thresholds, metrics."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engines.fields import Fraction, Part, Slug


class Calibration(Part):
    """How a logit becomes a score: ``sigmoid(scale * logit + bias)``."""

    id: Slug
    method: Literal["none", "temperature", "platt"]
    scale: Annotated[float, Field(gt=0)] = 1.0
    bias: float = 0.0
    fitted_on: str
    n: Annotated[int, Field(ge=0)]
    ece: float | None = None
    nll: float | None = None

    @model_validator(mode="after")
    def _as_the_method_says(self) -> Self:
        if self.method == "none" and self.scale != 1.0:
            raise ValueError("method 'none' means scale 1")
        if self.method != "platt" and self.bias != 0.0:
            raise ValueError(f"method {self.method!r} means bias 0")
        return self


class OperatingPoint(Part):
    """A threshold on the score, and the false-positive rate measured at it."""

    threshold: Fraction
    fpr: Fraction
    fpr_ci_low: Fraction
    fpr_ci_high: Fraction
    n_real: Annotated[int, Field(ge=0)]


class ThresholdSet(Part):
    """Where the bands begin: an image is in a band when its score >= the band's threshold."""

    id: Slug
    review: OperatingPoint
    block: OperatingPoint
    measured_on: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.block.threshold < self.review.threshold:
            raise ValueError("block.threshold must be at least review.threshold")
        return self


class GeneratorMetric(Part):
    """How well one generator's images are told from real ones; ``generator="all"`` pools them."""

    generator: Annotated[str, Field(min_length=1)]
    condition: Literal["native", "aligned"]
    seen_in_training: bool
    n_fake: Annotated[int, Field(ge=0)]
    n_real: Annotated[int, Field(ge=0)]
    auc: Fraction
    ap: Fraction
    accuracy_at_half: Fraction
    real_accuracy: Fraction
    fake_accuracy: Fraction
