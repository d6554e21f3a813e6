"""Two detectors are compared on the same draws of the same images."""

import numpy as np
import pytest

from trainer.evaluation.errors import EvaluationError
from trainer.evaluation.paired import paired_difference


def run(shift: float, noise: float, seed: int, count: int = 60) -> dict[str, float]:
    """Logits whose classes are ``shift`` apart; what makes an image hard is common to all runs."""
    hard = np.random.default_rng(0).normal(size=2 * count)
    own = np.random.default_rng(seed + 1).normal(size=2 * count) * noise
    keys = [f"real/a/{index}.png" for index in range(count)]
    keys += [f"fake/x/{index}.png" for index in range(count)]
    label = np.repeat([0.0, 1.0], count)
    return dict(zip(keys, (shift * label + hard + own).tolist(), strict=True))


def test_the_same_detector_differs_by_nothing() -> None:
    found = paired_difference([run(1, 0, 0)], [run(1, 0, 0)], resamples=50)
    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
    assert (found.n_real, found.n_fake, found.n_seeds) == (60, 60, 1)


def test_a_better_detector_is_found_where_unpaired_intervals_overlap() -> None:
    """What both find hard cancels out: a small difference is certain."""
    found = paired_difference([run(1.3, 0.05, 0)], [run(1.0, 0.05, 1)], resamples=300)
    assert found.difference.low > 0
    assert found.difference.value == pytest.approx(found.auc_first - found.auc_second)
    assert found.difference.high - found.difference.low < 0.06


def test_seeds_that_disagree_widen_the_interval() -> None:
    """Seeds are resampled too, in pairs."""
    plain = [run(1, 0, 0)] * 3
    agreeing = paired_difference([run(1.5, 0, 0)] * 3, plain, resamples=300)
    wild = paired_difference([run(0.4, 0, 0), run(1.5, 0, 0), run(3, 0, 0)], plain, resamples=300)
    assert wild.n_seeds == 3
    width = [one.difference.high - one.difference.low for one in (agreeing, wild)]
    assert width[1] > 2 * width[0]


def test_the_same_seed_gives_the_same_interval() -> None:
    first, second = [run(1, 0.5, 0)], [run(1, 0.5, 1)]
    assert paired_difference(first, second, resamples=50) == paired_difference(
        first, second, resamples=50
    )


def test_other_images_are_refused_by_name() -> None:
    other = run(1, 0, 0)
    del other["fake/x/7.png"]
    with pytest.raises(EvaluationError, match=r"fake/x/7\.png.*score both on one split"):
        paired_difference([run(1, 0, 0)], [other])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], [], "no run to compare"),
        ([{"real/a/1": 0.0}], [{"real/a/1": 0.0}], "add a class"),
        ([run(1, 0, 0)] * 2, [run(1, 0, 0)], "pair them by seed"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    first: list[dict[str, float]], second: list[dict[str, float]], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        paired_difference(first, second)
