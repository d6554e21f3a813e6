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


def test_training_brings_the_picture_nearer_and_repeats(tmp_path: Path) -> None:
    """Sixty steps on one photograph; the same seed gives the same weights."""
    pixels_HWC = photograph_px(96)
    drawn = []
    for steps, name in ((1, "one"), (60, "sixty"), (60, "again")):
        settings = config("nearest", 4, steps)
        train_autoencoder(settings, pixels_HWC[None], tmp_path / f"{name}.pt", silent)
        drawn.append(TrainedAutoencoder("nearest", 4, 8, tmp_path / f"{name}.pt"))
    pictures = [one.regenerate(pixels_HWC) for one in drawn]
    assert psnr_db(pictures[1], pixels_HWC) > psnr_db(pictures[0], pixels_HWC) + 3
    assert np.array_equal(pictures[1], pictures[2])


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
