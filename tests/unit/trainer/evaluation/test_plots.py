"""Attention maps are of the picture, at its resolution, from both classes."""

import numpy as np
import torch

from tests.unit.trainer.evaluation.pictures import flat, scored
from trainer.config import DetectorConfig
from trainer.detector import Detector
from trainer.evaluation.plots import attention_maps, spread


def test_folders_take_turns_and_classes_share_the_places() -> None:
    pictures = scored({"a": [0] * 5, "b": [0]}, {"x": [0] * 3, "y": [0] * 3}).pictures
    keys = [one.source.key for one in spread(pictures, 6)]
    assert keys == [
        "real/a/0.png",
        "real/b/0.png",
        "real/a/1.png",
        "fake/x/0.png",
        "fake/y/0.png",
        "fake/x/1.png",
    ]
    assert spread(pictures, 0) == []


def test_a_map_has_the_size_of_its_crop_and_no_negative_value() -> None:
    torch.manual_seed(0)
    detector = Detector(DetectorConfig(backbone="test_efficientnet", head_width=8)).eval()
    (found,) = attention_maps(detector, [flat(1, "x", 90)], 64)
    assert found.energy_HW.shape == (64, 64)
    assert found.crop_HWC.shape == (64, 64, 3)
    assert (found.energy_HW >= 0).all()
    assert np.isfinite(found.energy_HW).all()
    assert (found.key, found.label) == ("fake/x/p.png", 1)
