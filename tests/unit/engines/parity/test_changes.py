"""Decisions that change at a threshold."""

import math

import pytest

from engines.bundle.manifest import PreprocessSpec
from engines.parity.evaluation import DecisionChange, changes_by_set, decisions_changed
from tests.support.bundles import tiny_manifest

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
