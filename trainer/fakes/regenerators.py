"""The networks that regenerate photographs: super-resolvers of ncnn and the tiny autoencoder.

A regenerator takes uint8 RGB [H, W, 3] and returns a picture of the same thing and size. Its sides
are multiples of ``multiple_px``.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol

import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from trainer.config import TaefConfig, UpscalerConfig
from trainer.errors import TrainerError

PACKAGE = "package:"
_EXTRA = "from a checkout: pip install '.[fakes]'"


class RegeneratorError(TrainerError):
    """A regenerator that cannot be loaded or used; the message says what to do."""


class Regenerator(Protocol):
    """A network that regenerates a photograph.

    Attributes:
        digest: of its weights and options; a set's folder is bound to it.
        multiple_px: sides of a picture must be multiples of it.
    """

    digest: str
    multiple_px: int

    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the same picture, uint8 RGB of the same shape, drawn by the network."""
        ...


def located(text: str, field: str) -> Path:
    """A file, or ``package:NAME/FILE`` inside an installed package, which is not imported.

    Raises:
        RegeneratorError: the package or the file does not exist.
    """
    path = Path(text)
    if text.startswith(PACKAGE):
        package, _, inner = text.removeprefix(PACKAGE).partition("/")
        spec = find_spec(package)
        places = list(spec.submodule_search_locations or []) if spec else []
        if not places:
            raise RegeneratorError(f"{field} = {text!r}: the package is not installed: {_EXTRA}")
        path = Path(places[0]) / inner
    if not path.exists():
        raise RegeneratorError(f"{field}: {path} does not exist: name an existing file")
    return path


def random_of(pixels_HWC: NDArray[np.uint8]) -> np.random.Generator:
    """A generator seeded by the picture's digest: the same picture gets the same draws."""
    digest = hashlib.sha256(pixels_HWC.tobytes()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def to_unit(pixels_HWC: NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] -> fp32 [1, 3, H, W] on [0, 1]."""
    return torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1)[None].float() / 255


def from_unit(x_BCHW: Tensor) -> NDArray[np.uint8]:
    """fp32 [1, 3, H, W] on about [0, 1] -> uint8 [H, W, 3]; values outside are clipped."""
    scaled = (x_BCHW[0].detach().clamp(0, 1) * 255).round().to(torch.uint8)
    pixels_HWC: NDArray[np.uint8] = scaled.permute(1, 2, 0).contiguous().numpy()
    return pixels_HWC


class Upscaler:
    """A super-resolver in ncnn's format on the CPU: Real-ESRGAN, SPAN, RealSR, waifu2x.

    The photograph is reduced by the network's factor and enlarged by the network.

    Raises:
        RegeneratorError: ncnn is not installed or cannot load the network.
    """

    def __init__(self, config: UpscalerConfig, threads: int) -> None:
        try:
            import ncnn  # noqa: PLC0415  an optional extra, and slow to import
        except ImportError as error:
            raise RegeneratorError(f"ncnn is not installed: {_EXTRA}") from error
        param = located(config.param, f"families.{config.name}.param")
        weights = param.with_suffix(".bin")
        if not weights.exists():
            raise RegeneratorError(f"{weights} does not exist: put it beside {param.name}")
        self._matrix, self._factor, self._pad_px = ncnn.Mat, config.factor, config.pad_px
        self.multiple_px = config.factor
        self.digest = hashlib.sha256(param.read_bytes() + weights.read_bytes()).hexdigest()
        self._net = ncnn.Net()
        self._net.opt.use_vulkan_compute = False
        self._net.opt.num_threads = threads
        if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
            raise RegeneratorError(f"ncnn cannot load {param}: give a network of its format")
        self._input, self._output = self._net.input_names()[0], self._net.output_names()[0]

    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Reduce by the factor (bicubic, antialiased) and enlarge to the same size."""
        height, width = (length // self._factor for length in pixels_HWC.shape[:2])
        image = Image.fromarray(pixels_HWC).resize((width, height), Image.Resampling.BICUBIC)
        pad = (self._pad_px, self._pad_px)
        small_HWC = np.pad(np.asarray(image), (pad, pad, (0, 0)), mode="reflect")
        x_CHW = np.ascontiguousarray(small_HWC.transpose(2, 0, 1), dtype=np.float32) / 255
        extractor = self._net.create_extractor()
        # The clone owns its pixels: a view of numpy's memory is read after it is freed.
        extractor.input(self._input, self._matrix(x_CHW).clone())
        status, out = extractor.extract(self._output)
        drawn_CHW = np.array(out)
        if status or drawn_CHW.shape != (3, *pixels_HWC.shape[:2]):
            raise RegeneratorError(
                f"the network returned {drawn_CHW.shape} for {pixels_HWC.shape}: set factor and "
                "pad_px to those of the network"
            )
        clipped: NDArray[np.uint8] = (drawn_CHW * 255).round().clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(clipped.transpose(1, 2, 0))


class Taef2:
    """The tiny autoencoder of FLUX.2's latents (madebyollin/taesd, MIT), frozen.

    The latents may get noise before they are decoded, up to ``latent_noise`` standard deviations:
    the decoder then draws detail that the photograph does not have, as in a generated picture.

    Raises:
        RegeneratorError: the weights cannot be loaded.
    """

    multiple_px = 8

    def __init__(self, config: TaefConfig) -> None:
        self._encoder, self._decoder = build_taef2()
        encoder = _load(self._encoder, config.weights / "taef2_encoder.pth", 0)
        # The stored decoder counts its clamp as a layer.
        decoder = _load(self._decoder, config.weights / "taef2_decoder.pth", 1)
        self._noise = config.latent_noise
        self.digest = encoder + decoder + (f"-noise{self._noise:g}" if self._noise else "")

    @torch.no_grad()
    def regenerate(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Encode and decode; the noise is drawn by the picture's digest."""
        latent_BCHW: Tensor = self._encoder(to_unit(pixels_HWC))
        if self._noise:
            random = random_of(pixels_HWC)
            strength = random.uniform(0.0, self._noise) * float(latent_BCHW.std())
            field = random.standard_normal(tuple(latent_BCHW.shape), dtype=np.float32)
            latent_BCHW = latent_BCHW + torch.from_numpy(field) * strength
        return from_unit(self._decoder(torch.tanh(latent_BCHW / 3) * 3))


def build_taef2() -> tuple[nn.Sequential, nn.Sequential]:
    """The layers of ``AutoencoderTiny`` with what taef2 adds to it.

    Returns:
        The encoder of a picture on [0, 1] and the decoder of clamped latents, without weights. In
        the three deepest blocks of each, a pooling branch is added to the input.
    """
    network = AutoencoderTiny(latent_channels=32)
    encoder, decoder = network.encoder.layers, network.decoder.layers
    for block in (*encoder[11:14], *decoder[2:5]):
        block.pool = nn.Sequential(
            nn.Conv2d(64, 256, 1, bias=False),
            nn.GroupNorm(4, 256),
            nn.ReLU(),
            nn.Conv2d(256, 64, 1, bias=False),
        )
        block.register_forward_pre_hook(_pooled)
    return encoder, decoder


def _pooled(block: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0] + block.get_submodule("pool")(inputs[0]),)


def _load(layers: nn.Sequential, path: Path, offset: int) -> str:
    """Fill layers whose numbers in the file are higher by an offset; returns the file's digest."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        stored = torch.load(path, map_location="cpu", weights_only=True)
        state = {}
        for name, value in stored.items():
            number, _, rest = name.partition(".")
            state[f"{int(number) - offset}.{rest}"] = value.float()
        layers.load_state_dict(state)
    except (OSError, RuntimeError, ValueError, AttributeError, EOFError, UnpicklingError) as error:
        raise RegeneratorError(
            f"{path} cannot be loaded ({error}): families.weights must be a folder with "
            "taef2_encoder.pth and taef2_decoder.pth"
        ) from error
    layers.eval().requires_grad_(requires_grad=False)
    return digest
