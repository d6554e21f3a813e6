"""The detector (student): a timm backbone that classifies and learns to predict the teacher's noise.

In: uint8 RGB crops [N, S, S, 3]. Out: a logit for each crop and, on request, the predicted noise.
Errors: ``DetectorError``.

The noise head works at full resolution, because the signal is in single pixels, and still shapes the
backbone: its first layer applies the backbone's own stem at stride 1, beside the features of stride 2.
Its input is the picture minus its local mean, amplified: the noise is a hundredth of the picture, and a
head that must first learn to cancel the rest took ten times the steps (docs/concepts/anl.md). For a latent-space
teacher only the last layer strides, so that every pixel is still used.

The gate weights the last feature map by the predicted noise. ``classify`` uses neither gate nor head,
and a graph exported from it holds no node of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import DetectorConfig
from trainer.errors import TrainerError

# The head's three convolutions, the stem and the local mean see five pixels around a pixel; even,
# because shallow features are two pixels apart.
HALO_PX = 6
_RESIDUAL_GAIN = 16.0  # scales the picture minus its local mean to about 1
_SHALLOW_GAIN = 0.1  # shallow features are not normalised, and must not drown the residual
_LAST_WEIGHT = "head.layers.4.weight"
_GRID_PX = 8  # crops and windows lie on it
_STEM_KERNELS = {(3, 3), (5, 5), (7, 7)}
_PACKAGE = "package:"
IN_BUNDLE = ("backbone.", "classifier.")  # the parts whose weights are kept beside a bundle


class DetectorError(TrainerError):
    """A backbone, head or weights that do not fit; the message says what to do."""


@dataclass(frozen=True)
class Windows:
    """The part of each crop that has a target.

    Attributes:
        origin_px: (top, left) of each window in pixels.
        side_px: the side that all windows share.
    """

    origin_px: tuple[tuple[int, int], ...]
    side_px: int


@dataclass(frozen=True)
class TargetShape:
    """The shape of a teacher's noise.

    Attributes:
        channels: 3 for a pixel-space teacher; 4 or 16 for a latent-space teacher.
        stride: pixels from one place of the target to the next; 1, or a power of two.
    """

    channels: int = 3
    stride: int = 1

    def __post_init__(self) -> None:
        if _GRID_PX % self.stride:
            raise DetectorError(
                f"the teacher has a target for every {self.stride} px, which does not fit windows on "
                f"a grid of {_GRID_PX} px: choose a teacher whose autoencoder shrinks by 2, 4 or 8"
            )

    @property
    def halo_px(self) -> int:
        """Pixels that the head must see around a window; a multiple of the stride."""
        return -(-HALO_PX // self.stride) * self.stride


PIXELS = TargetShape()


@dataclass(frozen=True)
class Output:
    """The output of a training step.

    Attributes:
        logit_N: above 0 for generated.
        eps_BCHW: the predicted noise of the first B crops, inside their windows.
        attention_BHW: the noise energy of each place; None where the gate was dropped.
    """

    logit_N: Tensor  # noqa: N815  the suffix is the tensor's shape
    eps_BCHW: Tensor | None  # noqa: N815  the suffix is the tensor's shape
    attention_BHW: Tensor | None  # noqa: N815  the suffix is the tensor's shape

    def in_fp32(self) -> "Output":
        """The same output in fp32: the loss is never computed in low precision."""
        eps, attention = self.eps_BCHW, self.attention_BHW
        return Output(
            self.logit_N.float(),
            None if eps is None else eps.float(),
            None if attention is None else attention.float(),
        )


class Gate(nn.Module):
    """Weights features by where the detector predicts noise."""

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


class NoiseHead(nn.Module):
    """Three convolutions over the input, its residual, the dense stem and shallow features."""

    def __init__(self, stem: nn.Conv2d, shallow: int, width: int, target: TargetShape) -> None:
        super().__init__()
        self.target = target
        if stem.kernel_size not in _STEM_KERNELS:
            raise DetectorError(
                f"the stem's kernel is {stem.kernel_size}, which has no dense form: choose a "
                "detector.backbone whose first convolution is 3 x 3, 5 x 5 or 7 x 7"
            )
        # A place of a strided target sees its own pixels alone.
        side, padding = (3, 1) if target.stride == 1 else (target.stride, 0)
        self.layers = nn.Sequential(
            nn.Conv2d(3 + 3 + shallow + stem.out_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, target.channels, side, stride=target.stride, padding=padding),
        )

    def forward(self, x_BCHW: Tensor, shallow_BCHW: Tensor, stem: nn.Conv2d) -> Tensor:
        """Noise [B, channels, H / stride, W / stride] of x [B, 3, H, W] and shallow features."""
        residual = (x_BCHW - local_mean(x_BCHW)) * _RESIDUAL_GAIN
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        shallow = functional.interpolate(shallow_BCHW * _SHALLOW_GAIN, size=size)
        parts = [x_BCHW, residual, shallow, dense_stem(residual, stem)]
        eps: Tensor = self.layers(torch.cat(parts, dim=1))
        return eps


class Detector(nn.Module):
    """Backbone, classifier, noise head and gate."""

    def __init__(self, config: DetectorConfig, target: TargetShape = PIXELS) -> None:
        super().__init__()
        self.backbone: Any = timm.create_model(  # timm's networks have no common type
            config.backbone, features_only=True, pretrained=False
        )
        channels = self.backbone.feature_info.channels()
        self.classifier = nn.Linear(channels[-1], 1)
        self.dropout = nn.Dropout(config.dropout_p)
        self.head = NoiseHead(self._stem(), channels[0], config.head_width, target)
        self.gate = Gate()
        self.register_buffer("mean_C11", _column(config.mean), persistent=False)
        self.register_buffer("std_C11", _column(config.std), persistent=False)
        if config.weights:
            load_backbone(self.backbone, config)

    @classmethod
    def restored(cls, config: DetectorConfig, weights: dict[str, Tensor]) -> Self:
        """The detector with trained weights, in evaluation mode; no pretrained file is read."""
        last = weights.get(_LAST_WEIGHT)
        if last is None:
            raise DetectorError("these weights hold no noise head: train again")
        side = last.shape[2]
        target = TargetShape(last.shape[0], 1 if side == 3 else side)  # noqa: PLR2004  as in NoiseHead
        detector = cls(config.model_copy(update={"weights": ""}), target)
        detector.load_state_dict(weights)
        return detector.eval()

    @property
    def target(self) -> TargetShape:
        """The shape of the predicted noise."""
        return self.head.target

    def predict_noise(self, image_NHWC: Tensor) -> Tensor:
        """Standardised noise [N, channels, S / stride, S / stride] of whole crops."""
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
        """Logits [N] with the features weighted by the predicted noise."""
        x_NCHW = self.normalise(image_NHWC)
        features = self.backbone(x_NCHW)
        gated, _ = self.gate(features[-1], self.head(x_NCHW, features[0], self._stem()))
        return self._logit(gated)

    def forward(self, image_NHWC: Tensor, windows: Windows | None, *, gated: bool) -> Output:
        """The output of a training step.

        Args:
            image_NHWC: uint8 RGB crops.
            windows: of the first crops, where the noise is wanted; None for no noise.
            gated: whether the gate weights the features, which needs the noise of whole crops.
        """
        x_NCHW = self.normalise(image_NHWC)
        features = self.backbone(x_NCHW)
        if not gated:
            eps = self._windowed(x_NCHW, features[0], windows) if windows else None
            return Output(self._logit(features[-1]), eps, None)
        whole = self.head(x_NCHW, features[0], self._stem())
        weighted, energy = self.gate(features[-1], whole)
        eps = cut(whole[: len(windows.origin_px)], windows, self.target.stride) if windows else None
        return Output(self._logit(weighted), eps, energy)

    def _logit(self, feature_NCHW: Tensor) -> Tensor:
        pooled_NC = self.dropout(feature_NCHW.mean(dim=(2, 3)))
        logit: Tensor = self.classifier(pooled_NC)[:, 0]
        return logit

    def _windowed(self, x_NCHW: Tensor, shallow_NCHW: Tensor, windows: Windows) -> Tensor:
        """The head inside the windows alone: a window costs its own pixels and a halo."""
        count, side_px = len(windows.origin_px), windows.side_px
        halo_px, stride = self.target.halo_px, self.target.stride
        starts_px = [start for origin in windows.origin_px for start in origin]
        if min(starts_px) < halo_px or max(starts_px) + side_px + halo_px > x_NCHW.shape[2]:
            whole = self.head(x_NCHW[:count], shallow_NCHW[:count], self._stem())
            return cut(whole, windows, stride)
        shallow_stride = x_NCHW.shape[2] // shallow_NCHW.shape[2]
        outer = Windows(
            tuple((top - halo_px, left - halo_px) for top, left in windows.origin_px),
            side_px + 2 * halo_px,
        )
        inner = Windows(((halo_px, halo_px),) * count, side_px)
        x, shallow = cut(x_NCHW[:count], outer), cut(shallow_NCHW[:count], outer, shallow_stride)
        return cut(self.head(x, shallow, self._stem()), inner, stride)


@dataclass(frozen=True)
class Classifier:
    """A detector as a function of numpy arrays: uint8 [N, S, S, 3] -> logits [N]."""

    detector: Detector
    gated: bool = False

    @torch.inference_mode()
    def __call__(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits of whole crops."""
        run = self.detector.classify_gated if self.gated else self.detector.classify
        device = self.detector.classifier.weight.device
        logit_N = run(torch.from_numpy(image_NHWC.copy()).to(device))
        logit: NDArray[np.float32] = logit_N.float().cpu().numpy()
        return logit


def classifier(detector: Detector) -> Classifier:
    """The plain graph as a function of numpy arrays."""
    return Classifier(detector)


def gated_classifier(detector: Detector) -> Classifier:
    """The gated graph as a function of numpy arrays."""
    return Classifier(detector, gated=True)


def cut(x_BCHW: Tensor, windows: Windows, stride: int = 1) -> Tensor:
    """The windows [B, C, side, side] of a map whose places are ``stride`` pixels apart."""
    side = windows.side_px // stride
    return torch.stack(
        [
            x_CHW[:, top // stride : top // stride + side, left // stride : left // stride + side]
            for x_CHW, (top, left) in zip(x_BCHW, windows.origin_px, strict=True)
        ]
    )


def pooled(energy_B1HW: Tensor, size: tuple[int, int]) -> Tensor:
    """The mean over equal cells; the sides are multiples, as crops and feature maps are."""
    kernel = (energy_B1HW.shape[2] // size[0], energy_B1HW.shape[3] // size[1])
    return functional.avg_pool2d(energy_B1HW, kernel)


def local_mean(x_BCHW: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels."""
    padded = functional.pad(x_BCHW, (1, 1, 1, 1), mode="reflect")
    return functional.avg_pool2d(padded, 3, stride=1)


def dense_stem(x_BCHW: Tensor, stem: nn.Conv2d) -> Tensor:
    """The stem's filters at stride 1, each scaled to a gain of one at most, then a ReLU.

    Pretrained filters differ much in strength; unscaled, they saturate what follows.
    """
    gain = stem.weight.abs().sum(dim=(1, 2, 3), keepdim=True) + 1e-3
    return functional.relu(
        functional.conv2d(x_BCHW, stem.weight / gain, padding=stem.kernel_size[0] // 2)
    )


def load_backbone(backbone: nn.Module, config: DetectorConfig) -> None:
    """Load pretrained weights: by name, or by order where the whole model's shapes match.

    Raises:
        DetectorError: the file cannot be read, or does not fit the backbone.
    """
    path = _weights_path(config.weights)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise DetectorError(f"{path} cannot be loaded ({error}): check detector.weights") from error
    wanted = backbone.state_dict()
    if not set(wanted) <= set(state):
        whole = timm.create_model(config.backbone, pretrained=False).state_dict()
        if [value.shape for value in whole.values()] != [value.shape for value in state.values()]:
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


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]
