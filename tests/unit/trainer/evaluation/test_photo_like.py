"""Photo-like generators are judged where the split has them, and named where it has not."""

from pathlib import Path

import numpy as np

from trainer.config import EvaluationConfig
from trainer.data.dataset import Picture
from trainer.data.files import Source
from trainer.evaluation.run import missing_folders, photo_like_pictures

CONFIG = EvaluationConfig(photo_like=("dalle3", "flux1"), photographs=("phone",))


def pictures(*folders: tuple[int, str]) -> list[Picture]:
    """One picture of each (class, folder)."""
    pixels_HWC = np.zeros((8, 8, 3), np.uint8)
    return [
        Picture(Source(Path(f"{folder}.png"), label, folder, ""), pixels_HWC)
        for label, folder in folders
    ]


def test_only_what_is_named_is_compared() -> None:
    """Drawings and other photographs stay out."""
    split = pictures((0, "phone"), (0, "web"), (1, "dalle3"), (1, "sd1"))
    assert [one.source.folder for one in photo_like_pictures(split, CONFIG)] == ["phone", "dalle3"]
    (note,) = missing_folders(split, CONFIG)
    assert "name flux1, which" in note


def test_a_split_without_such_pictures_has_no_comparison() -> None:
    """One configuration serves all splits; a class alone is none."""
    assert photo_like_pictures(pictures((0, "phone"), (1, "sd1")), CONFIG) == []
    assert photo_like_pictures(pictures((0, "web"), (1, "dalle3")), CONFIG) == []
    (note,) = missing_folders(pictures((0, "phone"), (1, "sd1")), CONFIG)
    assert "name dalle3, flux1, which" in note


def test_without_a_list_of_photographs_all_of_them_are_taken() -> None:
    every = EvaluationConfig(photo_like=("dalle3",))
    split = pictures((0, "phone"), (0, "web"), (1, "dalle3"))
    assert len(photo_like_pictures(split, every)) == 3
    assert missing_folders(split, every) == []
