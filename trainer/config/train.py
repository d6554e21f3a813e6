"""How long, how fast, on which crops."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.config.base import Count, NotNegative, Part, Positive, Share

CountOrNone = Annotated[int, Field(ge=0)]  # 0 says "not set"; what holds then is beside the option


class TrainConfig(Part):
    """How long, how fast, on which crops."""

    start_from: str = ""  # the folder of an earlier run, whose chosen weights are the first here
    crop_px: Annotated[int, Field(ge=32, multiple_of=8)] = 128
    epochs: Count = 10
    steps: CountOrNone = 0  # in place of epochs, which say little once pairs are drawn
    batch: Annotated[int, Field(ge=4, multiple_of=4)] = 32  # of each process
    accumulate: Count = 1  # batches to a step: the gradient is the mean over them
    paired_share: Share = 0.5  # of the fakes of a batch that are regenerations of its photographs
    shared_softness_p: Share = 0.0  # of the pairs that are brought to one radial power spectrum
    lr: Positive = 5e-4
    head_lr_factor: Positive = 6.0  # the noise head starts from nothing, the backbone does not
    weight_decay: NotNegative = 0.02
    warmup_steps: CountOrNone = 50
    grad_clip: Positive = 5.0
    # Whether the backbone's norms keep the statistics of its first weights: those of a batch tell a
    # crop of its neighbours, and of its own pair.
    frozen_norms: bool = False
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0  # 0 is no moving average
    precision: Literal["fp32", "bf16"] = "fp32"  # of the student; the loss is fp32 always
    data_workers: Count = 1  # threads that make batches ahead; they change no result
    checkpoint_every_steps: Count = 50
    validate_every_steps: CountOrNone = 0  # 0 is after each epoch
    keep: Literal["best", "last"] = "best"  # of the weights that were validated; the last step is
    validate_pairs: bool = (
        False  # whether pairs of validation photographs share in choosing the step
    )
    patience: CountOrNone = 0  # validations without a better one until a run ends; 0 is never
    min_explained_variance: Share = 0.30  # a run that learnt less of the noise is not ANL

    @model_validator(mode="after")
    def _patience_keeps_the_best(self) -> Self:
        if self.patience and self.keep == "last":
            raise ValueError(
                "train.patience waits for a better validation, and train.keep = 'last' asks for the end "
                "of a run of fixed length: set one of them alone"
            )
        return self
