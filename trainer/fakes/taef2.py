"""Content-matched fakes: a photograph, encoded and decoded by a generator's autoencoder.

In: photographs, and an autoencoder's weights. Out: for each, the central region of native pixels
and its regeneration, which show the same thing and differ in the decoder's traces alone.
Errors: ``RegeneratorError``.

A pair shares every later step. Regenerations are kept on disk, without loss, by the digest of
the photograph, so that a second run does not compute them again.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from trainer.config import RegeneratorConfig
from trainer.data.dataset import Picture, evenly
from trainer.data.pairs import Pair
from trainer.fakes.regenerator import RegeneratorError, from_unit, random_of, to_unit

_WIDTH = 64
_GROUPS = 4
_LATENT = 32


class Regenerator(Protocol):
    """An autoencoder of a generator."""

    name: str

    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Encode and decode [S, S, 3]; S is a multiple of 8."""
        ...


class _Block(nn.Module):
    def __init__(self, *, pooled: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        self.pool = None
        if pooled:
            wide = _WIDTH * 4
            self.pool = nn.Sequential(
                nn.Conv2d(_WIDTH, wide, 1, bias=False),
                nn.GroupNorm(_GROUPS, wide),
                nn.ReLU(),
                nn.Conv2d(wide, _WIDTH, 1, bias=False),
            )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.pool is not None:
            x_BCHW = x_BCHW + self.pool(x_BCHW)
        return torch.relu(self.conv(x_BCHW) + x_BCHW)


class _SoftClamp(nn.Module):
    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.tanh(x_BCHW / 3) * 3


def _conv(stride: int = 1, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(_WIDTH, _WIDTH, 3, stride=stride, padding=1, bias=bias)


def build_encoder() -> nn.Sequential:
    """A picture on [0, 1] -> latents at an eighth of its size."""
    parts: list[nn.Module] = [nn.Conv2d(3, _WIDTH, 3, padding=1), _Block(pooled=False)]
    for level in range(3):
        parts.append(_conv(stride=2, bias=False))
        parts += [_Block(pooled=level == 2) for _ in range(3)]  # noqa: PLR2004  the deepest level
    return nn.Sequential(*parts, nn.Conv2d(_WIDTH, _LATENT, 3, padding=1))


def build_decoder() -> nn.Sequential:
    """Latents -> a picture on about [0, 1]."""
    parts: list[nn.Module] = [_SoftClamp(), nn.Conv2d(_LATENT, _WIDTH, 3, padding=1), nn.ReLU()]
    for level in range(3):
        parts += [_Block(pooled=level == 0) for _ in range(3)]
        parts += [nn.Upsample(scale_factor=2), _conv(bias=False)]
    return nn.Sequential(*parts, _Block(pooled=False), nn.Conv2d(_WIDTH, 3, 3, padding=1))


class Taef2:
    """The tiny autoencoder of FLUX.2's latents (madebyollin/taesd, MIT), frozen.

    Args:
        folder: of its weights.
        latent_noise: the most noise that a picture's latents get, in their standard deviations.
    """

    multiple_px = 8

    def __init__(self, folder: Path, latent_noise: float = 0.0) -> None:
        self._encoder, encoder_digest = _load(build_encoder(), folder / "taef2_encoder.pth")
        self._decoder, decoder_digest = _load(build_decoder(), folder / "taef2_decoder.pth")
        self._noise = latent_noise
        self.digest = encoder_digest + decoder_digest
        self.digest += f"-noise{latent_noise:g}" if latent_noise else ""
        self.name = f"taef2-{encoder_digest[:8]}{decoder_digest[:8]}"

    @torch.no_grad()
    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Encode and decode one picture; its noise is drawn by its digest, and so always the same."""
        latent_BCHW: Tensor = self._encoder(to_unit(pixels_HWC))
        if self._noise:
            latent_BCHW = latent_BCHW + self._drawn_noise(pixels_HWC, latent_BCHW)
        return from_unit(self._decoder(latent_BCHW))

    def _drawn_noise(self, pixels_HWC: NDArray[np.uint8], latent_BCHW: Tensor) -> Tensor:
        random = random_of(pixels_HWC)
        strength = random.uniform(0.0, self._noise) * float(latent_BCHW.std())
        field = random.standard_normal(tuple(latent_BCHW.shape), dtype=np.float32)
        return torch.from_numpy(field) * strength


def _load(module: nn.Module, path: Path) -> tuple[nn.Module, str]:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict({key: value.float() for key, value in state.items()})
    except (OSError, RuntimeError, AttributeError, EOFError, UnpicklingError) as error:
        raise RegeneratorError(
            f"{path} cannot be loaded ({error}): data.regenerators.weights needs a folder with "
            "taef2_encoder.pth and taef2_decoder.pth"
        ) from error
    return module.eval().requires_grad_(requires_grad=False), digest


def open_regenerator(config: RegeneratorConfig) -> Regenerator:
    """Load the autoencoder that the configuration names."""
    return Taef2(config.weights)


def chosen(photographs: Sequence[Picture], config: RegeneratorConfig) -> list[Picture]:
    """Which photographs get a regeneration: large enough, evenly spread over the folders."""
    fitting = [one for one in photographs if min(one.pixels_HWC.shape[:2]) >= config.region_px]
    return evenly(fitting, config.images)


def pairs(
    photographs: Sequence[Picture], config: RegeneratorConfig, tool: Regenerator, cache: Path
) -> Iterator[Pair]:
    """Each chosen photograph with its regeneration, computed or read from the cache."""
    folder = cache / f"{tool.name}-{config.region_px}px"
    folder.mkdir(parents=True, exist_ok=True)
    for photograph in chosen(photographs, config):
        real_HWC = _center(photograph.pixels_HWC, config.region_px)
        digest = hashlib.sha256(real_HWC.tobytes()).hexdigest()
        path = folder / f"{digest}.png"
        if not path.exists():
            partial = path.with_suffix(".part")
            Image.fromarray(tool.regenerate(real_HWC)).save(partial, "PNG")
            partial.replace(path)
        with Image.open(path) as image:
            fake_HWC = np.asarray(image.convert("RGB"))
        yield Pair(photograph.source.key, real_HWC, fake_HWC, config.kind)


def _center(pixels_HWC: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    top, left = ((length - side_px) // 2 for length in pixels_HWC.shape[:2])
    return np.ascontiguousarray(pixels_HWC[top : top + side_px, left : left + side_px])
