"""Shortcuts are found where there are some, and aligned crops hold none of the file's."""

from pathlib import Path

import numpy as np
import pytest

from tests.unit.trainer.evaluation.pictures import SPEC, noisy, stored
from trainer.data.dataset import Picture
from trainer.evaluation.errors import EvaluationError
from trainer.evaluation.probes import Probe, probe_all, void


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
    bad = Probe("file size", "aligned", 0.7, 0.68, 0.72, 40, constant=False)
    assert void([*native, bad], 0.6) == [bad]
    assert void([bad], 0.7) == []


def test_classes_that_differ_in_grain_alone_are_told_by_the_size_of_aligned_crops(
    tmp_path: Path,
) -> None:
    """Smooth pictures beside grainy ones: the very case that makes a run void."""
    pictures = []
    for index in range(15):
        grainy = noisy(np.random.default_rng(index), 64, 64)
        smooth = np.full((64, 64, 3), 10 * index, dtype=np.uint8)
        pictures.append(stored(tmp_path, 0, "r", f"{index}.png", grainy))
        pictures.append(stored(tmp_path, 1, "x", f"{index}.png", smooth))
    named = [one.shortcut for one in void(probe_all(pictures, SPEC), 0.6)]
    assert "file size" in named


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="5 real and 5 generated"):
        found(tmp_path, count=3)
