"""The backbone: a timm network that gives feature maps, whole or cut short.

In: a ``DetectorConfig``. Out: a module: normalised pictures [N, 3, S, S] -> feature maps, the shallow ones first.
Errors: ``DetectorError`` for more levels than the network has.

What a generator leaves behind is small and everywhere; what a picture shows is the business of the deep
levels. A backbone that ends earlier costs less for every crop, so it can look at more of them
(docs/concepts/reference-detector.md has a trial of it, which lost more than it gained).
"""

from typing import Any

import timm
from torch import nn

from trainer.config import DetectorConfig
from trainer.detector.errors import DetectorError

_STAGES = (
    "blocks"  # as timm calls the parts of the networks that it does not end with the last level
)


def open_backbone(config: DetectorConfig) -> tuple[nn.Module, list[int]]:
    """The network with random weights, which ends with the last level asked for; each level's channels."""
    chosen = {"out_indices": tuple(range(config.levels))} if config.levels else {}
    try:
        # timm's models have no types, nor has what they say of their features.
        backbone: Any = timm.create_model(
            config.backbone, features_only=True, pretrained=False, **chosen
        )
    except (IndexError, AssertionError) as error:
        raise DetectorError(
            f"{config.backbone} has fewer than {config.levels} levels of features: lower "
            "detector.levels, or leave it out for all of them"
        ) from error
    stages, _, last = backbone.feature_info.module_name()[-1].partition(".")
    if stages == _STAGES and isinstance(backbone.blocks, nn.Sequential):
        backbone.blocks = backbone.blocks[: int(last) + 1]
    return backbone, backbone.feature_info.channels()
