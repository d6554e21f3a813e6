"""Pictures from folders, and the area under the ROC curve."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from engines.bundle.manifest import BundleError
from engines.parity.evaluation import auc, labelled_pictures, sample_files


def fill(folder: Path, count: int) -> None:
    """That many files, named by number."""
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / f"{index}.jpg").write_bytes(b"%d" % index)


SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


@given(real=SCORES, fake=SCORES)
def test_the_auc_is_the_one_that_everybody_computes(real: list[float], fake: list[float]) -> None:
    """With ties, of which small whole numbers have many."""
    expected = roc_auc_score([0] * len(real) + [1] * len(fake), [*real, *fake])
    assert auc(real, fake) == pytest.approx(expected)


def test_the_label_is_the_folder(tmp_path: Path) -> None:
    fill(tmp_path / "real" / "cameras", 3)
    fill(tmp_path / "fake" / "flux1", 2)
    fill(tmp_path / "fake" / "sdxl", 1)
    (tmp_path / "fake" / "sdxl" / ".hidden").write_bytes(b"")
    found = labelled_pictures(tmp_path)
    assert [one.is_fake for one in found] == [False] * 3 + [True] * 3
    assert {one.path.parent.name for one in found if one.is_fake} == {"flux1", "sdxl"}


def test_a_share_of_each_folder_is_the_same_each_time(tmp_path: Path) -> None:
    fill(tmp_path / "real" / "a", 9)
    fill(tmp_path / "fake" / "b", 9)
    found = labelled_pictures(tmp_path, 4)
    assert len(found) == 8
    assert found == labelled_pictures(tmp_path, 4)
    assert set(found) < set(labelled_pictures(tmp_path))


@pytest.mark.parametrize("missing", ["real", "fake"])
def test_one_kind_alone_cannot_be_evaluated_on(tmp_path: Path, missing: str) -> None:
    fill(tmp_path / {"real": "fake", "fake": "real"}[missing] / "a", 1)
    with pytest.raises(BundleError, match="needs folders real/NAME and fake/NAME"):
        labelled_pictures(tmp_path)


def test_calibration_takes_from_every_folder_in_turn(tmp_path: Path) -> None:
    fill(tmp_path / "real" / "a", 9)
    fill(tmp_path / "b", 9)
    fill(tmp_path / "c", 1)
    found = sample_files(tmp_path, 7)
    assert sorted(path.parent.name for path in found) == ["a"] * 3 + ["b"] * 3 + ["c"]


def test_calibration_needs_files(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds no files"):
        sample_files(tmp_path, 1)
    with pytest.raises(BundleError, match="is not a directory"):
        sample_files(tmp_path / "nowhere", 1)
