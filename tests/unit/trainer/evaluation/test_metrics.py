"""Families share the real images, count the same, and those seen in training count apart."""

import numpy as np
import pytest

from tests.unit.trainer.evaluation.pictures import deployed, scored
from trainer.evaluation.calibration import by_threshold, reliability, threshold_rates
from trainer.evaluation.metrics import Bootstrap, Sampled, family_samples, family_table, seen_by
from trainer.evaluation.run import robustness_point, thinned
from trainer.evaluation.scoring import EvaluationError, ScoredPictures

BOOTSTRAP = Bootstrap(resamples=200, seed=0)
UNSEEN = seen_by(())


def normal(mean: float, count: int, seed: int) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 1, count))


def test_the_mean_is_of_families_that_training_never_saw() -> None:
    """The best family is a known one: it is listed, and left out of the mean."""
    logits = scored({"r": normal(-1, 40, 0)}, {"sd1": [9.0] * 9, "new": normal(1, 30, 1)})
    found = family_table(logits, "native", seen_by(("sd*[:-40]",)), BOOTSTRAP)
    assert found.mean_over == ("new",)
    assert found.mean["auc"].value == found.of("new").figures["auc"].value
    assert found.of("sd1").seen_in_training
    assert found.of("sd1").figures["auc"].value == 1.0


def test_every_family_counts_the_same_and_the_worst_is_named() -> None:
    logits = scored({"r": [0.0]}, {"many": [1.0] * 9, "few": [-1.0]})
    found = family_table(logits, "native", UNSEEN, BOOTSTRAP)
    assert found.mean["auc"].value == 0.5
    assert found.worst == "few"


def test_intervals_hold_the_figure_and_narrow_with_more_images() -> None:
    widths = []
    for count in (20, 500):
        logits = scored({"r": normal(-0.5, count, 0)}, {"x": normal(0.5, count, 1)})
        auc = family_table(logits, "native", UNSEEN, BOOTSTRAP).mean["auc"]
        assert auc.low < auc.value < auc.high
        widths.append(auc.high - auc.low)
    assert widths[1] < widths[0] / 2


def test_a_family_has_the_same_interval_whatever_else_is_evaluated() -> None:
    """Draws hang on the family's name, not on its place in a list."""
    reals, new = {"r": normal(-1, 30, 0)}, normal(0.5, 30, 1)
    alone = family_table(scored(reals, {"new": new}), "native", UNSEEN, BOOTSTRAP)
    among = family_table(scored(reals, {"a": [0.1] * 5, "new": new}), "native", UNSEEN, BOOTSTRAP)
    assert alone.of("new") == among.of("new")


def mean_auc(logits: ScoredPictures) -> Sampled:
    return Sampled.mean([family["auc"] for family in family_samples(logits, BOOTSTRAP).values()])


def test_a_difference_is_of_the_means_and_judged_on_the_same_draws() -> None:
    """What makes an image hard for both goes out: a shift of every fake shows beside a wide AUC."""
    real, fake = normal(0, 60, 0), normal(0.5, 60, 1)
    first = mean_auc(scored({"r": real}, {"x": [one + 0.1 for one in fake], "y": [0.0] * 9}))
    second = mean_auc(scored({"r": real}, {"x": fake, "y": [0.0] * 9}))
    less = (first - second).estimate()
    assert less.value == pytest.approx(first.value - second.value)
    wide = first.estimate()
    assert 0 < less.low < less.high < wide.high - wide.low
    same = (first - first).estimate()
    assert (same.value, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(("reals", "fakes"), [({}, {"x": [1.0]}), ({"r": [1.0]}, {})])
def test_a_split_without_a_class_is_refused(
    reals: dict[str, list[float]], fakes: dict[str, list[float]]
) -> None:
    with pytest.raises(EvaluationError, match="no real or no generated image"):
        family_table(scored(reals, fakes), "native", UNSEEN, BOOTSTRAP)


def test_false_alarms_are_counted_by_source_and_threshold() -> None:
    """A score on the threshold counts; all sources come last."""
    logits = scored({"phone": [-3, 0.0, 5], "web": [-1]}, {"x": [1]})
    found = {(one.source, one.threshold): one for one in threshold_rates(logits, 0, deployed())}
    assert (found["phone", "review"].reached, found["phone", "review"].n) == (2, 3)
    assert found["phone", "block"].reached == 1
    assert found["all", "review"].value == 0.5
    assert found["web", "block"].low == 0.0
    assert found["web", "block"].high == pytest.approx(0.793, abs=1e-3)  # Wilson, 0 of 1


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


def test_scores_that_mean_what_they_say_are_reliable() -> None:
    """Three of four at 0.75 are generated: no error. All of them at 0.75: a quarter."""
    value = float(np.log(3))
    honest = scored({"r": [-value] * 3 + [value]}, {"x": [value] * 3 + [-value]})
    assert reliability(honest, deployed()).ece == pytest.approx(0, abs=1e-6)
    shy = scored({"r": [-value] * 4}, {"x": [value] * 4})
    found = reliability(shy, deployed())
    assert found.ece == pytest.approx(0.25, abs=1e-6)
    assert found.nll == pytest.approx(-np.log(0.75), abs=1e-6)
    assert [(one.n_real, one.n_fake) for one in found.bins] == [(4, 0), (0, 4)]
