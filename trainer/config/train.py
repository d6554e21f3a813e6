"""The schedule of a training, and the crops it draws."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from trainer.config.base import Count, NotNegative, Part, Positive, Share

CountOrNone = Annotated[int, Field(ge=0)]  # 0 means "not set"; the option says what applies then


class TrainConfig(Part):
    """The schedule of a training, and the crops it draws."""

    removed: ClassVar[Mapping[str, str]] = {
        "frozen_norms": "leave it out; the norms follow the training data"
    }

    start_from: str = ""  # an earlier run's folder, or a bundle, whose weights come first
    crop_px: Annotated[int, Field(ge=32, multiple_of=8)] = 128
    epochs: Count = 10
    steps: CountOrNone = 0  # used in place of epochs, which mean little once pairs are drawn
    batch: Annotated[int, Field(ge=4, multiple_of=4)] = 32  # of each process
    accumulate: Count = 1  # batches to a step: the gradient is the mean over them
    paired_share: Share = 0.5  # of the fakes of a batch that are regenerations of its photographs
    shared_softness_p: Share = 0.0  # of the pairs that are brought to one radial power spectrum
    lr: Positive = 5e-4
    head_lr_factor: Positive = 6.0  # the noise head starts from nothing, the backbone does not
    weight_decay: NotNegative = 0.02
    warmup_steps: CountOrNone = 50
    grad_clip: Positive = 5.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0  # 0 is no moving average
    precision: Literal["fp32", "bf16"] = "fp32"  # of the student; the loss is fp32 always
    data_workers: Count = 1  # processes that make batches ahead; they change no result
    checkpoint_every_steps: Count = 50
    validate_every_steps: CountOrNone = 0  # 0 is after each epoch
    keep: Literal["best", "last"] = (
        "best"  # which of the validated weights; the last step is always validated
    )
    # Whether pairs of validation photographs help to choose the step.
    validate_pairs: bool = False
    patience: CountOrNone = 0  # validations without a better one that end a run; 0 never ends it
    min_explained_variance: Share = 0.30  # a run that explains less of the noise is not ANL

    @model_validator(mode="after")
    def _patience_keeps_the_best(self) -> Self:
        if self.patience and self.keep == "last":
            raise ValueError(
                "train.patience waits for a better validation, and train.keep = 'last' keeps the end of a "
                "run of fixed length: set only one of them"
            )
        return self
