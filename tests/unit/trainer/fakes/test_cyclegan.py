"""CycleGAN's generator is filled with the published weights, and changes colours, not content."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.photographs import photograph_px, psnr_db
from trainer.fakes.cyclegan import CycleGan, build_generator
from trainer.fakes.regenerator import RegeneratorError, located

WEIGHTS = "package:vintagify/resources/G_A2B_epoch33.pth"


def test_the_published_weights_draw_what_the_photograph_shows() -> None:
    """Wrong padding, norm or order leaves noise; what it draws is not what went in either."""
    pixels_HWC = photograph_px(96)
    drawn_HWC = CycleGan(located(WEIGHTS, "weights")).regenerate(pixels_HWC)
    assert drawn_HWC.shape == pixels_HWC.shape
    assert drawn_HWC.dtype == np.uint8
    assert 15.0 < psnr_db(drawn_HWC, pixels_HWC) < 40.0
    grey, drawn = (one.mean(axis=2).ravel() for one in (pixels_HWC, drawn_HWC))
    assert np.corrcoef(grey, drawn)[0, 1] > 0.9


def test_a_picture_keeps_its_size_where_it_is_no_square() -> None:
    """Two halvings and two doublings: sides are multiples of four."""
    pixels_HWC = photograph_px(96)[:64]
    assert CycleGan(located(WEIGHTS, "weights")).regenerate(pixels_HWC).shape == (64, 96, 3)


@pytest.mark.parametrize("kind", ["bytes", "another network"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, kind: str) -> None:
    """The message names the file that fits."""
    path = tmp_path / "other.pth"
    if kind == "bytes":
        path.write_bytes(b"no weights")
    else:
        state = build_generator().state_dict()
        torch.save({name: state[name] for name in list(state)[:-1]}, path)
    with pytest.raises(RegeneratorError, match=r"G_A2B_epoch33\.pth"):
        CycleGan(path)
