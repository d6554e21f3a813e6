"""The graph and the bundle that leave the trainer."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.config.base import Count, Part, Positive, Share


class CardConfig(Part):
    """The words of the model card that no measurement can give."""

    summary: str = "A detector of AI-generated images."
    data: str = "See the folders below for the sources."
    shown: str = ""  # what the figures do and do not show


class ExportConfig(Part):
    """The graph and the bundle that leave the trainer."""

    name: str = "reference"
    version: str = "0.1.0"
    crop_px: Annotated[int, Field(ge=32)] = 224
    crop_policy: Literal["center", "grid"] = "center"
    max_crops: Count = 1
    gate: Literal["off", "on"] = "off"
    batch_opt: Count = 8
    batch_max: Count = 32
    tolerance: Positive = 1e-3  # the largest difference of a logit, fp32
    # The folder of an evaluated run by the same recipe that left its test generators out of training,
    # for the card of a bundle that leaves none out.
    development: str = ""
    # Export a run that learnt too little of its target to be called ANL; its card then says so.
    allow_unlearnt_target: bool = False
    review_fpr: Share = 0.05
    block_fpr: Share = 0.01
    calibration: Literal["temperature", "platt"] = "platt"
    card: CardConfig = CardConfig()
