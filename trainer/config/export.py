"""The graph and the bundle that leave the trainer."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from engines.bundle.manifest import CropPolicy, MaxCrops, PreprocessSpec, refuse_other_count
from engines.preprocess import PREPROCESS_VERSION
from trainer.config.base import Count, Part, Positive

DEFAULT_SET = "default"
_SET_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")  # ends an id, and is typed into a setting
Rate = Annotated[float, Field(gt=0, le=1)]


class CardConfig(Part):
    """The words of the model card that no measurement can give."""

    summary: str = "A detector of AI-generated images."
    data: str = "See the folders below for the sources."
    shown: str = ""  # what the figures do and do not show


class RatesConfig(Part):
    """The false-positive rates that the two thresholds of a set may have at most."""

    review_fpr: Rate
    block_fpr: Rate
    # Patterns of the threshold split's folders to measure on; none is all but those of evaluation.out_of_domain.
    real: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.block_fpr > self.review_fpr:
            raise ValueError("block_fpr must be at most review_fpr: what blocks is stricter")
        return self


class ExportConfig(Part):
    """The graph and the bundle that leave the trainer."""

    removed: ClassVar[Mapping[str, str]] = {
        "allow_unlearnt_target": "leave it out (export.strict = true refuses a run that is not ANL)"
    }

    name: str = "reference"
    version: str = "0.1.0"
    crop_px: Annotated[int, Field(ge=32)] = 224
    crop_policy: CropPolicy = "center"
    max_crops: MaxCrops = 1
    gate: Literal["off", "on"] = "off"
    batch_opt: Count = 8
    batch_max: Count = 32
    tolerance: Positive = 1e-3  # the largest difference of a logit, fp32
    # The folder of an evaluated run by the same recipe that left its test generators out of training,
    # for the card of a bundle that leaves none out.
    development: str = ""
    # Refuse to export a run that is not ANL; else the card says so.
    strict: bool = False
    review_fpr: Rate = 0.05  # of the default threshold set
    block_fpr: Rate = 0.01
    threshold_sets: dict[str, RatesConfig] = Field(default_factory=dict)  # others, by name
    calibration: Literal["temperature", "platt"] = "platt"
    card: CardConfig = CardConfig()

    @model_validator(mode="after")
    def _as_many_as_the_policy_takes(self) -> Self:
        refuse_other_count(self.crop_policy, self.max_crops)
        return self

    @model_validator(mode="after")
    def _sets_are_named(self) -> Self:
        for name in self.threshold_sets:
            if name == DEFAULT_SET or not _SET_NAME.fullmatch(name):
                raise ValueError(
                    f"threshold_sets cannot name a set {name!r}: use lower-case letters, digits and "
                    f"hyphens, 32 at most, and not {DEFAULT_SET!r}, which review_fpr and block_fpr set"
                )
        self.rates()
        return self

    @property
    def preprocess(self) -> PreprocessSpec:
        """The crops of the worker, which validation uses too."""
        return PreprocessSpec(
            version=PREPROCESS_VERSION,
            crop_policy=self.crop_policy,
            crop_px=self.crop_px,
            max_crops=self.max_crops,
        )

    def rates(self) -> dict[str, RatesConfig]:
        """What is asked of every threshold set by its name, the default one first."""
        default = RatesConfig(review_fpr=self.review_fpr, block_fpr=self.block_fpr)
        return {DEFAULT_SET: default, **self.threshold_sets}
