"""Regenerations show what their photograph shows, and are computed once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.trainer import tiny_picture
from trainer.config import RegeneratorConfig
from trainer.data.dataset import Picture
from trainer.data.files import Source
from trainer.fakes.regenerator import RegeneratorError
from trainer.fakes.taef2 import Taef2, build_decoder, build_encoder, chosen, pairs

CONFIG = RegeneratorConfig(kind="taef2", weights=Path("unused"), images=2, region_px=64)


class Inverting:
    """Stands for an autoencoder: turns a picture into its negative, and counts."""

    name = "inverting"

    def __init__(self) -> None:
        self.asked = 0

    def regenerate(self, pixels_HWC: np.ndarray) -> np.ndarray:
        """255 - x."""
        self.asked += 1
        return 255 - pixels_HWC


def photographs(count: int = 4) -> list[Picture]:
    """Photographs of 80 x 96 px."""
    return [
        Picture(
            Source(Path(f"{index}.png"), 0, "a", ""),
            tiny_picture(np.random.default_rng(index), generated=False),
        )
        for index in range(count)
    ]


def test_a_pair_is_the_central_region_and_its_regeneration(tmp_path: Path) -> None:
    """Both have the region's size, in native pixels."""
    every = photographs()
    [first, _] = pairs(every, CONFIG, Inverting(), tmp_path)
    assert (first.photograph_key, first.family) == ("real/a/0.png", "taef2")
    assert (first.real_HWC == every[0].pixels_HWC[8:72, 16:80]).all()
    assert (first.fake_HWC == 255 - first.real_HWC).all()


def test_a_regeneration_is_computed_once(tmp_path: Path) -> None:
    """A second run reads the first one's, without loss."""
    first, again = Inverting(), Inverting()
    expected = list(pairs(photographs(), CONFIG, first, tmp_path))
    found = list(pairs(photographs(), CONFIG, again, tmp_path))
    assert (first.asked, again.asked) == (2, 0)
    assert all(
        (one.fake_HWC == two.fake_HWC).all() for one, two in zip(expected, found, strict=True)
    )


def test_photographs_are_spread_and_large_enough() -> None:
    """Every second of four; none below the region's size."""
    four = photographs()
    assert chosen(four, CONFIG) == [four[0], four[2]]
    assert chosen(four, CONFIG.model_copy(update={"region_px": 88})) == []


def weights_in(folder: Path) -> Path:
    """A folder with random weights of the right shapes."""
    torch.manual_seed(0)
    for name, module in (("encoder", build_encoder()), ("decoder", build_decoder())):
        state = {key: value.half() for key, value in module.state_dict().items()}
        torch.save(state, folder / f"taef2_{name}.pth")
    return folder


def test_the_autoencoder_keeps_the_size(tmp_path: Path) -> None:
    """Weights of the right shapes are loaded; 64 x 64 px go in and come out."""
    tool = Taef2(weights_in(tmp_path))
    found = tool.regenerate(photographs(1)[0].pixels_HWC[:64, :64])
    assert found.shape == (64, 64, 3)
    assert found.dtype == np.uint8
    assert tool.name.startswith("taef2-")


def test_noise_in_the_latents_is_the_pictures_own(tmp_path: Path) -> None:
    """It changes what is drawn, the same way each time, and what it drew is filed apart."""
    plain, noisy = Taef2(weights_in(tmp_path)), Taef2(tmp_path, latent_noise=0.8)
    pixels_HWC = photographs(1)[0].pixels_HWC[:64, :64]
    drawn = noisy.regenerate(pixels_HWC)
    assert np.array_equal(drawn, noisy.regenerate(pixels_HWC))
    assert not np.array_equal(drawn, plain.regenerate(pixels_HWC))
    assert noisy.digest != plain.digest


def test_absent_weights_are_named(tmp_path: Path) -> None:
    """The message says which files the folder needs."""
    with pytest.raises(RegeneratorError, match=r"taef2_encoder\.pth cannot be loaded"):
        Taef2(tmp_path)
