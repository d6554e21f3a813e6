"""The score is fitted on its own split, and a threshold claims no more than its images support."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.trainer.evaluation.pictures import deployed, scored
from trainer.config import RatesConfig
from trainer.evaluation.calibration import (
    CalibrationError,
    expected_calibration_error,
    fit,
    operating_point,
    photographs_needed,
    reliability,
    sigmoid,
    threshold_rates,
    unsupported_rates,
    wilson_interval,
)


def logits(count: int, scale: float = 1.0, bias: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right about their odds, then distorted: (real, fake)."""
    random = np.random.default_rng(0)
    true_N = random.normal(0, 2, count)
    fake_N = random.random(count) < sigmoid(true_N)
    given_N = ((true_N - bias) / scale).astype(np.float32)
    return given_N[~fake_N], given_N[fake_N]


def test_platt_undoes_a_distortion() -> None:
    """Logits three times too bold and shifted get their scale and bias back."""
    found = fit(*logits(8000, scale=1 / 3, bias=1.0), "platt")
    assert found.scale == pytest.approx(1 / 3, rel=0.1)
    assert found.bias == pytest.approx(1.0, abs=0.12)
    assert found.nll < found.nll_before
    assert found.ece < 0.02 < found.ece_before


def test_temperature_leaves_the_middle_where_it_is() -> None:
    """It has no bias: a logit of 0 stays a score of 0.5."""
    found = fit(*logits(4000, scale=0.5), "temperature")
    assert found.bias == 0.0
    assert found.scale == pytest.approx(0.5, rel=0.1)
    assert found.score(np.zeros(1, dtype=np.float32))[0] == 0.5


def test_an_imbalance_of_the_split_does_not_move_the_score() -> None:
    """Both classes weigh the same: ten times more reals give nearly the same fit."""
    real_N, fake_N = logits(8000)
    even, uneven = fit(real_N, fake_N, "platt"), fit(real_N, fake_N[::10], "platt")
    assert uneven.bias == pytest.approx(even.bias, abs=0.25)


def test_separable_logits_give_a_finite_fit() -> None:
    """Platt's smoothed targets keep the scale from growing without end."""
    found = fit(np.full(20, -1, dtype=np.float32), np.full(20, 1, dtype=np.float32), "platt")
    assert 0 < found.scale < 20
    assert 0.9 < found.score(np.ones(1, dtype=np.float32))[0] < 1


def test_a_class_of_one_is_refused() -> None:
    """One fake image fits anything."""
    with pytest.raises(CalibrationError, match=r"data\.splits\.calibration"):
        fit(np.zeros(5, dtype=np.float32), np.zeros(1, dtype=np.float32), "platt")


def test_calibration_error_is_the_gap_between_score_and_share() -> None:
    """Always 0.9 where half are fakes: off by 0.4."""
    score_N, label_N = np.full(10, 0.9), np.array([0, 1] * 5, dtype=float)
    found = expected_calibration_error(score_N, label_N, np.ones(10))
    assert found == pytest.approx(0.4)


@given(
    st.lists(st.floats(0, 1), min_size=60, max_size=200),
    st.floats(0.05, 0.5),
)
def test_no_threshold_exceeds_its_rate(scores: list[float], rate: float) -> None:
    """Whatever the scores, ties included, the measured rate is at most what was asked."""
    point = operating_point(np.array(scores), rate)
    alarms = sum(one >= point.threshold for one in scores)
    assert alarms / len(scores) <= rate
    assert point.fpr == alarms / len(scores)
    assert point.fpr_ci_low <= point.fpr <= point.fpr_ci_high


def test_the_lowest_such_threshold_is_taken() -> None:
    """5 % of 100 distinct scores: the five highest are false alarms, no fewer."""
    point = operating_point(np.linspace(0, 0.99, 100), 0.05)
    assert point.fpr == pytest.approx(0.05)
    assert point.n_real == 100


@pytest.mark.parametrize(("count", "supported"), [(299, False), (300, True)])
def test_few_images_do_not_support_a_small_rate(count: int, supported: bool) -> None:  # noqa: FBT001  pytest passes it
    """1 % needs 300 real images, by the rule of three; the message gives the number."""
    rates = {"default": RatesConfig(review_fpr=0.05, block_fpr=0.01)}
    problems = unsupported_rates({"phone": count}, rates)
    assert bool(problems) is not supported
    if supported:
        assert operating_point(np.linspace(0, 0.9, count), 0.01).fpr <= 0.01
    else:
        (problem,) = problems
        assert "299 real images cannot support a false-positive rate of 0.01" in problem
        assert "(export.block_fpr)" in problem
        assert "until there are 300, or raise the rate" in problem


@pytest.mark.parametrize(("fpr", "needed"), [(1.0, 3), (0.3, 10), (0.05, 60), (0.01, 300)])
def test_a_rate_needs_three_over_itself(fpr: float, needed: int) -> None:
    """Rounding does not add an image."""
    assert photographs_needed(fpr) == needed


def test_every_unsupported_rate_is_named_at_once() -> None:
    """Nobody fixes one option, and is then told of the next."""
    rates = {
        "default": RatesConfig(review_fpr=0.05, block_fpr=0.01),
        "drawings": RatesConfig(review_fpr=0.1, block_fpr=0.1, real=("drawn*",)),
        "scans": RatesConfig(review_fpr=0.1, block_fpr=0.1, real=("scan*",)),
    }
    problems = unsupported_rates({"phone": 50, "drawn_a": 30}, rates, ["drawn*"])
    assert [problem.partition("(export")[2].partition(")")[0] for problem in problems[:2]] == [
        ".review_fpr",
        ".block_fpr",
    ]
    assert problems[2].endswith("export.threshold_sets.scans: its `real` names none of the folders")
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(0, 100, 0.0, 0.0370), (5, 100, 0.0215, 0.1118), (50, 100, 0.4038, 0.5962)],
)
def test_the_interval_is_wilsons(successes: int, count: int, low: float, high: float) -> None:
    """Values from tables of the score interval."""
    assert wilson_interval(successes, count) == pytest.approx((low, high), abs=1e-4)


def test_false_alarms_are_counted_by_source_and_threshold() -> None:
    """A score on the threshold counts; all sources come last."""
    logits = scored({"phone": [-3, 0.0, 5], "web": [-1]}, {"x": [1]})
    found = {(one.source, one.threshold): one for one in threshold_rates(logits, 0, deployed())}
    assert (found["phone", "review"].reached, found["phone", "review"].n) == (2, 3)
    assert found["phone", "block"].reached == 1
    assert found["all", "review"].value == 0.5
    assert found["web", "block"].low == 0.0
    assert found["web", "block"].high == pytest.approx(0.793, abs=1e-3)  # Wilson, 0 of 1


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
