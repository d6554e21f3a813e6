"""Small autoencoders: every kind fits its size, learns, and comes back from its file."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from tests.support.photographs import photograph_px, psnr_db
from trainer.config.fakes import AutoencoderConfig
from trainer.fakes.autoencoder import Autoencoder, TrainedAutoencoder, Upsampling
from trainer.fakes.autoencoder_training import train_autoencoder
from trainer.fakes.regenerator import RegeneratorError

KINDS: tuple[Upsampling, ...] = ("nearest", "bilinear", "transposed", "pixel_shuffle")


def config(upsampling: Upsampling, factor: Literal[4, 8, 16], steps: int) -> AutoencoderConfig:
    """A narrow one."""
    return AutoencoderConfig(
        kind="autoencoder",
        name="tiny",
        upsampling=upsampling,
        factor=factor,
        width=8,
        steps=steps,
        batch=4,
        lr=1e-2,
    )


def silent(_: str) -> None:
    """Nobody listens."""


@pytest.mark.parametrize("upsampling", KINDS)
@pytest.mark.parametrize("factor", [4, 8, 16])
def test_every_kind_gives_back_the_size_it_was_given(upsampling: Upsampling, factor: int) -> None:
    """Through a latent at 1/factor."""
    network = Autoencoder(upsampling, factor, width=4)
    x_BCHW = torch.rand(2, 3, 32, 48)
    assert network.encoder(x_BCHW).shape[2:] == (32 // factor, 48 // factor)
    assert network(x_BCHW).shape == x_BCHW.shape


def test_training_brings_the_picture_nearer(tmp_path: Path) -> None:
    """Some steps on one photograph."""
    pixels_HWC = photograph_px(96)
    settings = config("nearest", 4, 240).model_copy(update={"max_error": 0.7})
    train_autoencoder(settings, pixels_HWC[None], tmp_path / "it", silent)
    drawn_HWC = TrainedAutoencoder("nearest", 4, 8, tmp_path / "it").regenerate(pixels_HWC)
    flat_HWC = np.broadcast_to(pixels_HWC.mean(axis=(0, 1)), pixels_HWC.shape).astype(np.uint8)
    assert psnr_db(drawn_HWC, pixels_HWC) > psnr_db(flat_HWC, pixels_HWC) + 4


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    """Of two trainings, to the last pixel."""
    pixels_HWC = photograph_px(96)
    drawn = []
    settings = config("nearest", 4, 12).model_copy(update={"max_error": 10.0})
    for name in ("once", "again"):
        train_autoencoder(settings, pixels_HWC[None], tmp_path / name, silent)
        drawn.append(TrainedAutoencoder("nearest", 4, 8, tmp_path / name).regenerate(pixels_HWC))
    assert np.array_equal(drawn[0], drawn[1])


def test_one_that_draws_the_mean_colour_is_refused(tmp_path: Path) -> None:
    """Flat pictures would teach that what is flat is generated; nothing is written."""
    with pytest.raises(RegeneratorError, match="raise steps"):
        train_autoencoder(config("nearest", 4, 2), photograph_px(96)[None], tmp_path / "x", silent)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    """The message says that they can be trained again."""
    path = tmp_path / "weights.pt"
    torch.save(Autoencoder("nearest", 4, 8).state_dict(), path)
    with pytest.raises(RegeneratorError, match="trained again"):
        TrainedAutoencoder("transposed", 4, 8, path)


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    """A learning rate that throws the weights away."""
    settings = config("nearest", 4, 30).model_copy(update={"lr": 1e30})
    with pytest.raises(RegeneratorError, match="lower lr"):
        train_autoencoder(settings, photograph_px(64)[None], tmp_path / "x.pt", silent)
