"""The student: a timm backbone that classifies, and learns to see the teacher's noise.

In: uint8 RGB crops [N, S, S, 3]. Out: a logit for each, and, where asked, the predicted noise.
Errors: ``DetectorError``.

The gate weighs the last feature map by the noise that the student itself predicts. ``classify``
uses neither gate nor head; a graph exported of it holds no node of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from trainer.config import DetectorConfig, View
from trainer.detector.backbone import open_backbone
from trainer.detector.errors import DetectorError
from trainer.detector.gate import Gate
from trainer.detector.head import PIXELS, NoiseHead, TargetShape, local_residual, target_of
from trainer.detector.weights import load_backbone
from trainer.detector.windows import Windows, cut

_TRUNCATED_AT = 3.0  # of a residual that is about 1 in texture


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

    def in_fp32(self) -> "Output":
        """The same, for a loss that is never computed in low precision."""
        eps, attention = self.eps_BCHW, self.attention_BHW
        return Output(
            self.logit_N.float(),
            None if eps is None else eps.float(),
            None if attention is None else attention.float(),
        )


class Detector(nn.Module):
    """Backbone, classifier, noise head and gate."""

    def __init__(self, config: DetectorConfig, target: TargetShape = PIXELS) -> None:
        super().__init__()
        self.backbone: Any  # a network of timm's, of which each has parts of its own
        self.backbone, channels = open_backbone(config)
        self.classifier = nn.Linear(channels[-1], 1)
        self.dropout = nn.Dropout(config.dropout_p)
        self._view = config.view
        self.head = NoiseHead(self._stem(), channels[0], config, target)
        self.gate = Gate()
        self.register_buffer("mean_C11", _column(config.mean), persistent=False)
        self.register_buffer("std_C11", _column(config.std), persistent=False)
        if config.weights:
            load_backbone(self.backbone, config)

    @classmethod
    def restored(cls, config: DetectorConfig, weights: dict[str, Tensor]) -> Self:
        """The detector of trained weights, in evaluation mode; no pretrained file is read."""
        bare = config.model_copy(update={"weights": ""})
        detector = cls(bare, target_of(weights))
        detector.load_state_dict(weights)
        return detector.eval()

    @property
    def target(self) -> TargetShape:
        """What the predicted noise looks like."""
        return self.head.target

    def freeze_norms(self) -> None:
        """Let the backbone's norms go by their running statistics, until ``train`` is called again.

        Their weights learn on.
        """
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def predict_noise(self, image_NHWC: Tensor) -> Tensor:
        """Standardised noise [N, channels, S / stride, S / stride] of whole crops."""
        x_NCHW = self.normalise(image_NHWC)
        eps: Tensor = self.head(x_NCHW, self._features(x_NCHW)[0], self._stem())
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

    def _features(self, x_NCHW: Tensor) -> list[Tensor]:
        """The backbone's feature maps of what it is given to look at, the shallow ones first."""
        features: list[Tensor] = self.backbone(seen(x_NCHW, self._view))
        return features

    def classify(self, image_NHWC: Tensor) -> Tensor:
        """Logits [N] of the plain backbone: the gate is off."""
        return self._logit(self._features(self.normalise(image_NHWC))[-1])

    def classify_gated(self, image_NHWC: Tensor) -> Tensor:
        """Logits [N] with the features weighed by the predicted noise."""
        x_NCHW = self.normalise(image_NHWC)
        features = self._features(x_NCHW)
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
        features = self._features(x_NCHW)
        if not gated:
            eps = self._windowed(x_NCHW, features[0], windows) if windows else None
            return Output(self._logit(features[-1]), eps, None)
        whole = self.head(x_NCHW, features[0], self._stem())
        weighed, energy = self.gate(features[-1], whole)
        eps = cut(whole[: len(windows.origin_px)], windows, self.target.stride) if windows else None
        return Output(self._logit(weighed), eps, energy)

    def _logit(self, feature_NCHW: Tensor) -> Tensor:
        pooled_NC = self.dropout(feature_NCHW.mean(dim=(2, 3)))
        logit: Tensor = self.classifier(pooled_NC)[:, 0]
        return logit

    def _windowed(self, x_NCHW: Tensor, shallow_NCHW: Tensor, windows: Windows) -> Tensor:
        """The head within the windows alone: a window costs its own pixels and a halo."""
        count, side_px = len(windows.origin_px), windows.side_px
        halo_px, stride = self.target.halo_px, self.target.stride
        tops_px = [one for origin in windows.origin_px for one in origin]
        beyond_px = max(tops_px) + side_px + halo_px > x_NCHW.shape[2]
        if min(tops_px) < halo_px or beyond_px:
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


def seen(x_NCHW: Tensor, view: View) -> Tensor:
    """What the backbone looks at of a normalised picture.

    A residual is cut off where an edge would drown the texture beside it: the truncated linear unit of
    detectors of hidden data (Ye et al., IEEE TIFS 2017).
    """
    if view == "picture":
        return x_NCHW
    return local_residual(x_NCHW).clamp(-_TRUNCATED_AT, _TRUNCATED_AT)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]
