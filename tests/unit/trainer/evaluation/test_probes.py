"""Shortcuts are found where there are some, and aligned crops hold none of the file's."""

from pathlib import Path

import numpy as np
import pytest
import sklearn

from tests.unit.trainer.evaluation.pictures import SPEC, flat, noisy, stored
from trainer.data.dataset import Picture
from trainer.evaluation.probes import MIN_PICTURES, Probe, probe, probe_all, too_few, void


def found(root: Path, count: int = 20) -> dict[str, Probe]:
    """Photographs of many sizes as JPEG beside PNG fakes of one size."""
    pictures: list[Picture] = []
    for index in range(count):
        random = np.random.default_rng(index)
        sides = random.integers(48, 90, 2)
        pixels = noisy(random, int(sides[0]), int(sides[1]))
        pictures.append(stored(root, 0, "r", f"{index}.jpg", pixels))
        fake = noisy(np.random.default_rng(1000 + index), 64, 64)
        pictures.append(stored(root, 1, "x", f"{index}.png", fake))
    return {f"{one.condition} {one.shortcut}": one for one in probe_all(pictures, SPEC)}


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Probe]:
    return found(tmp_path_factory.mktemp("files"))


def test_format_and_size_give_the_class_away_in_files_and_not_in_crops(
    probes: dict[str, Probe],
) -> None:
    """PNG of one size beside JPEG of many: each trait alone is enough, until both are aligned."""
    for trait in ("format", "JPEG quantisation", "dimensions", "aspect"):
        assert probes[f"native {trait}"].balanced_accuracy > 0.9, trait
        assert probes[f"aligned {trait}"].constant, trait
        assert probes[f"aligned {trait}"].balanced_accuracy == 0.5, trait
    assert probes["native format"].n == 40


def test_a_void_is_of_the_aligned_set_alone(probes: dict[str, Probe]) -> None:
    """A shortcut in the files is why sets are aligned; one that survives it voids the run."""
    native = [one for one in probes.values() if one.condition == "native"]
    assert void(native, 0.6) == []
    sure = Probe("file size", "aligned", 0.7, 0.62, 0.78, 40, constant=False)
    unsure = Probe("blockiness", "aligned", 0.7, 0.58, 0.82, 40, constant=False)
    assert void([*native, sure, unsure], 0.6) == [sure]
    assert void([sure], 0.7) == []


@pytest.mark.parametrize("n_fake", [MIN_PICTURES, 3 * MIN_PICTURES])
def test_classes_that_do_not_differ_are_void_in_at_most_one_draw_of_a_hundred(
    n_fake: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the smallest number of pictures, where the accuracy alone would often pass the limit."""
    monkeypatch.setattr("trainer.evaluation.probes._REPEATS", 1)  # four times as fast, and noisier
    label_N = np.repeat([0, 1], [MIN_PICTURES, n_fake])
    random = np.random.default_rng(0)
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        probes = [
            probe("file size", "aligned", random.normal(size=(len(label_N), 1)), label_N)
            for _ in range(120)
        ]
    assert sum(one.balanced_accuracy > 0.6 for one in probes) > 5
    assert len(void(probes, 0.6)) <= 1


def test_the_interval_holds_the_accuracy_and_narrows_with_more_pictures() -> None:
    """Classes that overlap: what twenty pictures leave open, two hundred decide."""
    widths = []
    for count in (20, 200):
        label_N = np.repeat([0, 1], count)
        feature_N1 = (label_N + np.random.default_rng(1).normal(size=2 * count))[:, None]
        measured = probe("file size", "aligned", feature_N1, label_N)
        assert measured.low < measured.balanced_accuracy < measured.high
        widths.append(measured.high - measured.low)
    assert widths[1] < widths[0] / 2
    assert measured.low > 0.6


def test_classes_that_differ_in_grain_alone_are_told_by_the_size_of_aligned_crops(
    tmp_path: Path,
) -> None:
    """Smooth pictures beside grainy ones: the very case that makes a run void."""
    pictures = []
    for index in range(20):
        grainy = noisy(np.random.default_rng(index), 64, 64)
        smooth = np.full((64, 64, 3), 10 * index, dtype=np.uint8)
        pictures.append(stored(tmp_path, 0, "r", f"{index}.png", grainy))
        pictures.append(stored(tmp_path, 1, "x", f"{index}.png", smooth))
    named = [one.shortcut for one in void(probe_all(pictures, SPEC), 0.6)]
    assert "file size" in named


def test_too_few_pictures_cannot_tell(tmp_path: Path) -> None:
    """They are not called void, and not called fine either: the sentence says how many it takes."""
    assert found(tmp_path, count=3) == {}
    pictures = [flat(label, "x", 0) for label in [0] * 40 + [1] * 19]
    sentence = too_few(pictures)
    assert sentence is not None
    assert "40 real and 19 generated pictures are too few to tell" in sentence
    assert "until there are 20 of each" in sentence
    assert too_few([*pictures, flat(1, "x", 0)]) is None
