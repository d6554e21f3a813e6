"""The student and its loss."""

from typing import Literal

from pydantic import Field

from trainer.config.base import Count, NotNegative, Part, Positive, Share

View = Literal["picture", "residual"]


class DetectorConfig(Part):
    """The student: a timm backbone, its noise head and its attention gate."""

    backbone: str = "tf_efficientnet_lite0"
    # Levels of feature maps, the first at half the size, each half of the one before; 0 is all that there are.
    levels: int = Field(0, ge=0)
    weights: str = ""  # "" random; a file; or "package:NAME/FILE" inside an installed package
    head: Literal["dense_stem", "upsample", "residual"] = "dense_stem"
    head_width: Count = 32
    gate_drop_p: Share = 0.5
    dropout_p: Share = 0.1
    # What the backbone looks at: the picture, or what is left of it without its local mean.
    view: View = "picture"
    mean: tuple[Share, Share, Share] = (0.5, 0.5, 0.5)
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)


class LossConfig(Part):
    """BCE + lambda_noise * MSE + lambda_glob * (1 - normalised entropy)."""

    lambda_noise: NotNegative = 1.0
    lambda_glob: NotNegative = 0.05
    tau: Positive = 1.0
