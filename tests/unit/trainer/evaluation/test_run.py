"""What an evaluation measures beside the tables of families, and what it names as missing."""

from pathlib import Path

import numpy as np

from tests.unit.trainer.evaluation.pictures import deployed, scored
from trainer.config import EvaluationConfig
from trainer.data.dataset import Picture
from trainer.data.files import Source
from trainer.evaluation.calibration import by_threshold, threshold_rates
from trainer.evaluation.metrics import Bootstrap, seen_by
from trainer.evaluation.run import missing_folders, photo_like_pictures, robustness_point, thinned

BOOTSTRAP = Bootstrap(resamples=200, seed=0)


UNSEEN = seen_by(())


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


def test_every_shipped_set_has_rates_of_its_own() -> None:
    """The same images at each set's thresholds; the changes of robustness are judged by the default."""
    logits = scored({"phone": [-3, 0.0, 5], "web": [-1]}, {"x": [1]})
    both = deployed(loose=(0.2, 0.6))
    found = threshold_rates(logits, 0, both)
    reached = {
        (one.threshold_set, one.threshold): one.reached for one in found if one.source == "all"
    }
    assert reached == {
        ("default", "review"): 2,
        ("default", "block"): 1,
        ("loose", "review"): 3,
        ("loose", "block"): 1,
    }
    assert [one[-1].reached for one in by_threshold(found, "loose")] == [3, 1]
    changed = robustness_point("jpeg75", logits, UNSEEN, both, BOOTSTRAP)
    assert {one.threshold_set for one in changed.alarms} == {"default"}


def test_what_is_caught_is_the_mean_over_unseen_families() -> None:
    logits = scored({"r": [-1, 1]}, {"a": [1] * 9, "b": [-1]})
    found = robustness_point("jpeg75", logits, UNSEEN, deployed(), BOOTSTRAP)
    assert found.caught == {"review": 0.5, "block": 0.0}
    assert [one.reached for one in found.alarms] == [1, 0]
    assert robustness_point("jpeg75", logits, UNSEEN, None, BOOTSTRAP).caught == {}


def test_thinning_keeps_every_folder() -> None:
    pictures = scored({"r": [0] * 10}, {"x": [0] * 3, "y": [0] * 10}).pictures
    kept = thinned(pictures, 4)
    assert [one.source.folder for one in kept] == ["r"] * 4 + ["x"] * 3 + ["y"] * 4
    assert thinned(pictures, 0) == list(pictures)
