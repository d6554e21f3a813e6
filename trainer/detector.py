"""The student: a timm backbone that classifies, and learns to see the teacher's noise.

In: uint8 RGB crops [N, S, S, 3]. Out: a logit for each, and, where asked, the predicted noise.
Errors: ``DetectorError``.

The noise head works at full resolution, because the signal is in single pixels, and still shapes
the backbone: its first layer has the filters of the backbone's own stem, applied at stride 1, with
the features of stride 2 beside it. It looks at the picture less its local mean, amplified: the
noise is a hundredth of the picture, and a head that must first learn to cancel the rest took ten
times the steps (docs/anl.md). The gate
weighs the last feature map by the noise that the student itself predicts. ``classify`` uses
neither; a graph exported of it holds no node of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import DetectorConfig
from trainer.errors import TrainerError

# What the head's three convolutions, the stem and the local mean see beyond a pixel is five; even,
# because shallow features are two pixels apart.
HALO_PX = 6
_RESIDUAL_GAIN = 16.0  # brings the picture less its local mean to about 1
_SHALLOW_GAIN = 0.1  # shallow features are not normalised, and must not drown the residual
_PACKAGE = "package:"


class DetectorError(TrainerError):
    """A backbone or weights that do not fit; the message says what to do."""


@dataclass(frozen=True)
class Windows:
    """Which part of each crop the noise is wanted for: (top, left) in pixels, and the side."""

    origin_px: tuple[tuple[int, int], ...]
    side_px: int


@dataclass(frozen=True)
class Output:
    """What training looks at.

    Attributes:
        logit_N: above 0 for generated.
        eps_BCHW: the predicted noise of the first B crops, within their windows.
        attention_BHW: how noisy the student finds each place; None where the gate was dropped.
    """

    logit_N: Tensor  # noqa: N815  the suffix is the tensor's shape
    eps_BCHW: Tensor | None  # noqa: N815  the suffix is the tensor's shape
    attention_BHW: Tensor | None  # noqa: N815  the suffix is the tensor's shape


class NoiseHead(nn.Module):
    """Full-resolution noise from the input, the dense stem and shallow features."""

    def __init__(self, stem: nn.Conv2d, shallow: int, width: int, kind: str) -> None:
        super().__init__()
        self._dense = kind == "dense_stem"
        channels = 3 + 3 + shallow
        if self._dense:
            if stem.kernel_size not in {(3, 3), (5, 5), (7, 7)}:
                raise DetectorError(
                    f"the stem's kernel is {stem.kernel_size}: set detector.head = 'upsample'"
                )
            channels += stem.out_channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 3, 3, padding=1),
        )

    def forward(self, x_BCHW: Tensor, shallow_BCHW: Tensor, stem: nn.Conv2d) -> Tensor:
        """Noise [B, 3, H, W] of x [B, 3, H, W] and its features at a lower resolution."""
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        residual = (x_BCHW - local_mean(x_BCHW)) * _RESIDUAL_GAIN
        shallow = functional.interpolate(shallow_BCHW * _SHALLOW_GAIN, size=size)
        parts = [x_BCHW, residual, shallow]
        if self._dense:
            parts.append(dense_stem(residual, stem))
        eps: Tensor = self.layers(torch.cat(parts, dim=1))
        return eps


def local_mean(x_BCHW: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels."""
    padded = functional.pad(x_BCHW, (1, 1, 1, 1), mode="reflect")
    return functional.avg_pool2d(padded, 3, stride=1)


def dense_stem(x_BCHW: Tensor, stem: nn.Conv2d) -> Tensor:
    """The stem's filters at stride 1, each scaled to a gain of one at most, then a ReLU.

    Pretrained filters are of very different strength; unscaled, they saturate what follows.
    """
    gain = stem.weight.abs().sum(dim=(1, 2, 3), keepdim=True) + 1e-3
    return functional.relu(
        functional.conv2d(x_BCHW, stem.weight / gain, padding=stem.kernel_size[0] // 2)
    )


class Gate(nn.Module):
    """Weighs features by where the student predicts noise."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(1, 1, 1)

    def forward(self, feature_BCHW: Tensor, eps_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(f * (1 + A / mean(A)), E): E is the pooled magnitude of the noise [B, H, W]."""
        size = (feature_BCHW.shape[2], feature_BCHW.shape[3])
        energy_B1HW = pooled(eps_BCHW.abs().mean(dim=1, keepdim=True), size)
        attention = torch.sigmoid(self.scale(energy_B1HW))
        attention = attention / attention.mean(dim=(2, 3), keepdim=True)
        return feature_BCHW * (1 + attention), energy_B1HW[:, 0]


def pooled(energy_B1HW: Tensor, size: tuple[int, int]) -> Tensor:
    """The mean over equal cells; the sides are multiples, as crops and feature maps are."""
    kernel = (energy_B1HW.shape[2] // size[0], energy_B1HW.shape[3] // size[1])
    return functional.avg_pool2d(energy_B1HW, kernel)


class Detector(nn.Module):
    """Backbone, classifier, noise head and gate."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.backbone = timm.create_model(config.backbone, features_only=True, pretrained=False)
        channels = self.backbone.feature_info.channels()
        self.classifier = nn.Linear(channels[-1], 1)
        self.dropout = nn.Dropout(config.dropout_p)
        self.head = NoiseHead(self._stem(), channels[0], config.head_width, config.head)
        self.gate = Gate()
        self.register_buffer("mean_C11", _column(config.mean), persistent=False)
        self.register_buffer("std_C11", _column(config.std), persistent=False)
        if config.weights:
            load_backbone(self.backbone, config)

    def predict_noise(self, image_NHWC: Tensor) -> Tensor:
        """Standardised noise [N, 3, S, S] of whole crops."""
        x_NCHW = self.normalise(image_NHWC)
        eps: Tensor = self.head(x_NCHW, self.backbone(x_NCHW)[0], self._stem())
        return eps

    def _stem(self) -> nn.Conv2d:
        for module in self.backbone.modules():
            if isinstance(module, nn.Conv2d) and module.in_channels == 3:  # noqa: PLR2004  RGB
                return module
        raise DetectorError("the backbone has no convolution of RGB: choose another")

    def normalise(self, image_NHWC: Tensor) -> Tensor:
        """uint8 [N, S, S, 3] -> normalised [N, 3, S, S]; the cast comes before the transpose."""
        x_NCHW = image_NHWC.to(torch.float32).permute(0, 3, 1, 2) / 255
        mean, std = self.get_buffer("mean_C11"), self.get_buffer("std_C11")
        return (x_NCHW - mean) / std

    def classify(self, image_NHWC: Tensor) -> Tensor:
        """Logits [N] of the plain backbone: the gate is off."""
        return self._logit(self.backbone(self.normalise(image_NHWC))[-1])

    def classify_gated(self, image_NHWC: Tensor) -> Tensor:
        """Logits [N] with the features weighed by the predicted noise."""
        x_NCHW = self.normalise(image_NHWC)
        features = self.backbone(x_NCHW)
        gated, _ = self.gate(features[-1], self.head(x_NCHW, features[0], self._stem()))
        return self._logit(gated)

    def forward(self, image_NHWC: Tensor, windows: Windows | None, *, gated: bool) -> Output:
        """What a training step needs.

        Args:
            image_NHWC: uint8 crops.
            windows: of the first crops, which have targets; None where none has.
            gated: whether the features are weighed; needs the noise of whole crops.
        """
        x_NCHW = self.normalise(image_NHWC)
        features = self.backbone(x_NCHW)
        if not gated:
            eps = self._windowed(x_NCHW, features[0], windows) if windows else None
            return Output(self._logit(features[-1]), eps, None)
        whole = self.head(x_NCHW, features[0], self._stem())
        weighed, energy = self.gate(features[-1], whole)
        eps = cut(whole[: len(windows.origin_px)], windows) if windows else None
        return Output(self._logit(weighed), eps, energy)

    def _logit(self, feature_NCHW: Tensor) -> Tensor:
        pooled_NC = self.dropout(feature_NCHW.mean(dim=(2, 3)))
        logit: Tensor = self.classifier(pooled_NC)[:, 0]
        return logit

    def _windowed(self, x_NCHW: Tensor, shallow_NCHW: Tensor, windows: Windows) -> Tensor:
        """The head within the windows alone: a window costs its own pixels and a halo."""
        count, side_px = len(windows.origin_px), windows.side_px
        if side_px + 2 * HALO_PX > x_NCHW.shape[2]:
            return cut(self.head(x_NCHW[:count], shallow_NCHW[:count], self._stem()), windows)
        stride = x_NCHW.shape[2] // shallow_NCHW.shape[2]
        outer = Windows(
            tuple((top - HALO_PX, left - HALO_PX) for top, left in windows.origin_px),
            side_px + 2 * HALO_PX,
        )
        inner = Windows(((HALO_PX, HALO_PX),) * count, side_px)
        x = cut(x_NCHW[:count], outer)
        return cut(self.head(x, cut(shallow_NCHW[:count], outer, stride), self._stem()), inner)


def cut(x_BCHW: Tensor, windows: Windows, stride: int = 1) -> Tensor:
    """The windows [B, C, side, side] of a map whose pixels are ``stride`` apart."""
    side = windows.side_px // stride
    return torch.stack(
        [
            one[:, top // stride : top // stride + side, left // stride : left // stride + side]
            for one, (top, left) in zip(x_BCHW, windows.origin_px, strict=True)
        ]
    )


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


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
