"""Pretrained weights of a backbone, from a file or from inside an installed package.

In: a timm backbone and its configuration. Out: the backbone, filled. Errors: ``DetectorError``.
"""

from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError

import timm
import torch
from torch import nn

from trainer.config import DetectorConfig
from trainer.detector.errors import DetectorError

_PACKAGE = "package:"


def load_backbone(backbone: nn.Module, config: DetectorConfig) -> None:
    """Load pretrained weights: by name, or by order where the whole model's shapes match."""
    path = _weights_path(config.weights)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise DetectorError(f"{path} cannot be loaded ({error}): check detector.weights") from error
    wanted = backbone.state_dict()
    if not set(wanted) <= set(state):
        whole = timm.create_model(config.backbone, pretrained=False).state_dict()
        shapes = [tuple(one.shape) for one in whole.values()]
        if shapes != [tuple(one.shape) for one in state.values()]:
            raise DetectorError(
                f"{path} does not fit {config.backbone}, by name or by order: "
                "give weights of that model"
            )
        state = dict(zip(whole, state.values(), strict=True))
    backbone.load_state_dict({key: state[key] for key in wanted})


def _weights_path(text: str) -> Path:
    if not text.startswith(_PACKAGE):
        return Path(text)
    package, _, inner = text.removeprefix(_PACKAGE).partition("/")
    try:
        return Path(str(files(package).joinpath(inner)))
    except ModuleNotFoundError as error:
        raise DetectorError(f"detector.weights: install the package {package!r}") from error
