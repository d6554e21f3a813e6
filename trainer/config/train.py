"""How long, how fast, on which crops."""

from typing import Annotated

from pydantic import Field

from trainer.config.base import Count, NotNegative, Part, Positive, Share


class TrainConfig(Part):
    """How long, how fast, on which crops."""

    crop_px: Annotated[int, Field(ge=32, multiple_of=8)] = 128
    epochs: Count = 10
    batch: Annotated[int, Field(ge=4, multiple_of=4)] = 32
    paired_share: Share = 0.5  # of the fakes of a batch that are regenerations of its photographs
    lr: Positive = 5e-4
    head_lr_factor: Positive = 6.0  # the noise head starts from nothing, the backbone does not
    weight_decay: NotNegative = 0.02
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    grad_clip: Positive = 5.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0  # 0 is no moving average
    checkpoint_every_steps: Count = 50
