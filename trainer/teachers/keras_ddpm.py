"""A pixel-space DDPM written in Keras, as a diffusers model; and the converter of its weights.

In: a TensorFlow.js folder (``model.json`` and its shards). Out: a diffusers folder with
``unet/`` and ``scheduler/``. Errors: ``TeacherError``, ``TfjsError``.

Its layout is not that of ``diffusers.UNet2DModel``, which has no time features of a width of
their own and adds the raw input after attention. This network adds the *normalised* input (the
weights were trained so), and its GroupNorm has an eps of 1e-3.
"""

import math
import re
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainer.teachers.errors import TeacherError
from trainer.tfjs import read_tfjs

_EPS = 1e-3
_ATTENTION_LEVELS = 2  # the last two


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels: int, time_width: int, groups: int) -> None:
        super().__init__()
        same = channels_in == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1)
        self.time = nn.Linear(time_width, channels)
        self.norm1 = nn.GroupNorm(groups, channels_in, eps=_EPS)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels, eps=_EPS)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor, time_BC: Tensor) -> Tensor:
        hidden = self.conv1(functional.silu(self.norm1(x_BCHW)))
        hidden = hidden + self.time(functional.silu(time_BC))[:, :, None, None]
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        return hidden + self.shortcut(x_BCHW)  # type: ignore[no-any-return]  # torch's __add__


class Attention(nn.Module):
    """Self-attention of one head, whose residual adds the normalised input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=_EPS)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x_BCHW: Tensor, time_BC: Tensor) -> Tensor:
        """[B, C, H, W] to the same; the time is not looked at."""
        del time_BC  # the same call as a residual block
        normed = self.norm(x_BCHW)
        token_BNC = normed.flatten(2).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(
            self.query(token_BNC), self.key(token_BNC), self.value(token_BNC)
        )
        out_BCHW = self.out(mixed).transpose(1, 2).reshape(normed.shape)
        return normed + out_BCHW  # type: ignore[no-any-return]  # the quirk: not x_BCHW


class _Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # TensorFlow's "same" padding of an even side at stride 2 lies right and below.
        return self.conv(functional.pad(x_BCHW, (0, 1, 0, 1)))  # type: ignore[no-any-return]


class _Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x_BCHW, scale_factor=2.0))  # type: ignore[no-any-return]


class KerasDdpmUnet(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers ships no types; its models are mixins
    """The U-Net: noise [B, 3, H, W] of x [B, 3, H, W] in [-1, 1] and array indices t [B].

    Modules are made in the order in which Keras made its layers, so a converter can pair them.
    """

    @register_to_config  # type: ignore[untyped-decorator]  # diffusers ships no types
    def __init__(
        self,
        sample_size: int = 64,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        blocks: int = 2,
        groups: int = 8,
        time_features: int = 256,
    ) -> None:
        super().__init__()
        del sample_size  # kept in the configuration for whoever tiles an image
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.time1 = nn.Linear(time_features, time_features)
        self.time2 = nn.Linear(time_features, time_features)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for level, channels in enumerate(widths):
            for _ in range(blocks):
                self.down.append(self._block(width, channels, level))
                width = channels
                skips.append(width)
            if level < len(widths) - 1:
                self.down.append(_Down(width))
                skips.append(width)
        last = len(widths) - 1
        self.mid = nn.ModuleList(
            [
                self._block(width, width, last),
                nn.ModuleList([_Residual(width, width, time_features, groups)]),
            ]
        )
        for level in reversed(range(len(widths))):
            for _ in range(blocks + 1):
                self.up.append(self._block(width + skips.pop(), widths[level], level))
                width = widths[level]
            if level > 0:
                self.up.append(_Up(width))
        self.norm_out = nn.GroupNorm(groups, width, eps=_EPS)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def _block(self, channels_in: int, channels: int, level: int) -> nn.ModuleList:
        groups, time_width = self.config.groups, self.config.time_features
        parts = nn.ModuleList([_Residual(channels_in, channels, time_width, groups)])
        if level >= len(self.config.widths) - _ATTENTION_LEVELS:
            parts.append(Attention(channels, groups))
        return parts

    def forward(self, sample: Tensor, timestep: Tensor | int) -> UNet2DOutput:
        """Predict the noise; ``timestep`` is one array index, or one for each image."""
        index_B = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        time_BC = self._time(index_B)
        x = self.conv_in(sample)
        skips = [x]
        for part in self.down:
            x = _applied(part, x, time_BC)
            skips.append(x)
        for part in self.mid:
            x = _applied(part, x, time_BC)
        for part in self.up:
            if not isinstance(part, _Up):
                x = torch.cat([x, skips.pop()], dim=1)
            x = _applied(part, x, time_BC)
        return UNet2DOutput(sample=self.conv_out(functional.silu(self.norm_out(x))))

    def _time(self, index_B: Tensor) -> Tensor:
        half = self.config.time_features // 2
        step = -math.log(10_000) / (half - 1)
        frequency_F = torch.exp(step * torch.arange(half, device=index_B.device))
        angle_BF = index_B[:, None].float() * frequency_F
        feature_BF = torch.cat([angle_BF.sin(), angle_BF.cos()], dim=1)
        return self.time2(functional.silu(self.time1(feature_BF)))  # type: ignore[no-any-return]


def _applied(part: nn.Module, x_BCHW: Tensor, time_BC: Tensor) -> Tensor:
    if not isinstance(part, nn.ModuleList):
        return part(x_BCHW)  # type: ignore[no-any-return]  # a module's call is untyped
    for one in part:
        x_BCHW = one(x_BCHW, time_BC)
    return x_BCHW


def convert(source: Path, target: Path) -> int:
    """Write the TF.js model as a diffusers folder; returns the number of parameters."""
    model = KerasDdpmUnet()
    model.load_state_dict(state_of(model, read_tfjs(source)))
    scheduler = DDPMScheduler(
        num_train_timesteps=300, beta_schedule="squaredcos_cap_v2", clip_sample=False
    )
    model.save_pretrained(target / "unet")
    scheduler.save_pretrained(target / "scheduler")
    return sum(one.numel() for one in model.parameters())


def state_of(model: KerasDdpmUnet, tensors: dict[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """Pair Keras's layers, numbered in the order of construction, with our modules."""
    layers: dict[str, dict[int, dict[str, NDArray[np.float32]]]] = {}
    for name, value in tensors.items():
        match = re.search(r"/(conv2d|dense|group_normalization)_(\d+)/(\w+)/ReadVariableOp", name)
        if match:
            kind, number, role = match.group(1), int(match.group(2)), match.group(3)
            layers.setdefault(kind, {}).setdefault(number, {})[role] = value
    state: dict[str, Tensor] = {}
    wanted = {"conv2d": nn.Conv2d, "dense": nn.Linear, "group_normalization": nn.GroupNorm}
    for kind, module_type in wanted.items():
        modules = [pair for pair in model.named_modules() if isinstance(pair[1], module_type)]
        modules.sort(key=lambda pair: _construction_order(pair[0]))
        numbers = sorted(layers.get(kind, {}))
        if len(numbers) != len(modules):
            raise TeacherError(
                f"the model has {len(numbers)} {kind} layers, this network {len(modules)}: "
                "only the DDPM described in docs/concepts/teachers.md can be converted"
            )
        for (name, module), number in zip(modules, numbers, strict=True):
            state |= _layer(name, module, layers[kind][number])
    return state


def _construction_order(name: str) -> tuple[int, ...]:
    first = {"conv_in": 0, "time1": 1, "time2": 2, "down": 3, "mid": 4, "up": 5, "norm_out": 6}
    head, *rest = name.split(".")
    return (first.get(head, 7), *(int(part) for part in rest if part.isdigit()))


def _layer(
    name: str, module: nn.Module, values: dict[str, NDArray[np.float32]]
) -> dict[str, Tensor]:
    if isinstance(module, nn.GroupNorm):
        # Keras reshapes gamma in Reshape_1 and beta in Reshape_2.
        pair = {"weight": values["Reshape_1"], "bias": values["Reshape_2"]}
    elif isinstance(module, nn.Conv2d):
        pair = {"weight": values["Conv2D"].transpose(3, 2, 0, 1), "bias": values["BiasAdd"]}
    else:
        kernel = values["Tensordot"] if "Tensordot" in values else values["MatMul"]
        pair = {"weight": kernel.T, "bias": values["BiasAdd"]}
    return {f"{name}.{key}": torch.from_numpy(one.copy()) for key, one in pair.items()}
