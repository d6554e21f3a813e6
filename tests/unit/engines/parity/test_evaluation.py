"""Pictures from folders, and the area under the ROC curve."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from engines.bundle.manifest import BundleError, PreprocessSpec
from engines.parity.evaluation import (
    DecisionChange,
    auc,
    changes_by_set,
    decisions_changed,
    labelled_pictures,
    sample_files,
)
from tests.support.bundles import tiny_manifest


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


MANIFEST = tiny_manifest(PreprocessSpec(version="1", crop_policy="center", crop_px=32))


def logit_at(score: float) -> float:
    """The logit whose calibrated score that is."""
    calibration = MANIFEST.calibration
    return (math.log(score / (1 - score)) - calibration.bias) / calibration.scale


def test_a_decision_changes_where_the_threshold_lies_between() -> None:
    """The thresholds are 0.5 and 0.9."""
    reference = [logit_at(one) for one in (0.4, 0.6, 0.6, 0.95)]
    other = [logit_at(one) for one in (0.45, 0.4, 0.95, 0.95)]
    review, block = decisions_changed(MANIFEST, other, reference)
    assert (review.threshold_set, review.band, review.threshold) == ("default", "review", 0.5)
    assert (review.changed, review.of) == (1, 4)
    assert (block.band, block.changed) == ("block", 1)


def test_nothing_changes_where_the_logits_are_the_same() -> None:
    logits = [logit_at(one) for one in (0.1, 0.5, 0.9)]
    assert [one.changed for one in decisions_changed(MANIFEST, logits, logits)] == [0, 0]


def test_every_threshold_set_is_looked_at() -> None:
    (one,) = MANIFEST.threshold_sets
    strict = one.model_copy(update={"id": "strict"})
    manifest = MANIFEST.model_copy(update={"threshold_sets": (one, strict)})
    found = decisions_changed(manifest, [0.0], [0.0])
    assert [(each.threshold_set, each.band) for each in found] == [
        ("default", "review"), ("default", "block"), ("strict", "review"), ("strict", "block"),
    ]  # fmt: skip


def test_lists_of_different_lengths_are_the_callers_error() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        decisions_changed(MANIFEST, [0.0], [0.0, 1.0])


def changed(threshold_set: str, review: int, block: int) -> tuple[DecisionChange, DecisionChange]:
    """Of 634 inputs."""
    return (
        DecisionChange(threshold_set, "review", 0.5, review, 634),
        DecisionChange(threshold_set, "block", 0.9, block, 634),
    )


def test_a_threshold_set_is_told_in_a_line() -> None:
    default, few = changed("mine-1.0-default", 3, 4), changed("mine-1.0-few-alarms", 7, 5)
    assert changes_by_set(default) == ["3, 4 of 634"]
    assert changes_by_set([*default, *few]) == ["default 3, 4 of 634", "few-alarms 7, 5 of 634"]


def test_a_set_whose_name_is_the_beginning_of_another_keeps_one() -> None:
    found = changes_by_set([*changed("mine", 1, 2), *changed("mine-too", 3, 4)])
    assert found == ["mine 1, 2 of 634", "mine-too 3, 4 of 634"]
