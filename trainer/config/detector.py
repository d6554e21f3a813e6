"""The student and its loss."""

from collections.abc import Mapping
from typing import ClassVar

from trainer.config.base import Count, NotNegative, Part, Positive, Share


class DetectorConfig(Part):
    """The student: a timm backbone, its noise head and its attention gate."""

    removed: ClassVar[Mapping[str, str]] = {
        "view": "leave it out; the backbone always sees the picture itself",
        "levels": "leave it out; all feature maps of the backbone are used",
        "head": "leave it out; dense_stem is the only noise head",
    }

    backbone: str = "tf_efficientnet_lite0"
    weights: str = ""  # "" random; a file; or "package:NAME/FILE" inside an installed package
    head_width: Count = 32
    gate_drop_p: Share = 0.5
    dropout_p: Share = 0.1
    mean: tuple[Share, Share, Share] = (0.5, 0.5, 0.5)
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)


class LossConfig(Part):
    """BCE + lambda_noise * MSE + lambda_glob * (1 - normalised entropy)."""

    lambda_noise: NotNegative = 1.0
    lambda_glob: NotNegative = 0.05
    tau: Positive = 1.0
