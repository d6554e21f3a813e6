"""Differences are those of the AUC, their intervals cover, and chance is told from skill."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from trainer.evaluation.paired import paired_difference
from trainer.study.analysis import PairedRun, difference, ranked_right, signs, spread


def logits(
    seed: int, shift: float, families: tuple[str, ...] = ("sd1", "ldm"), count: int = 40
) -> dict[str, float]:
    """Normal logits, those of generated images ``shift`` above the others."""
    random = np.random.default_rng(seed)
    found = {f"real/bsds/{i}.png": float(random.normal()) for i in range(count)}
    for family in families:
        found |= {f"fake/{family}/{i}.png": float(random.normal(shift)) for i in range(count)}
    return found


def auc(run: dict[str, float], family: str) -> float:
    """By scikit-learn."""
    kept = {key: one for key, one in run.items() if not key.startswith("fake/") or family in key}
    return float(roc_auc_score([key.startswith("fake/") for key in kept], list(kept.values())))


def runs(gain: float, folds: int = 2, seeds: int = 3) -> list[PairedRun]:
    """Variants ``gain`` above their baselines, in folds of one family."""
    return [
        PairedRun(
            (f"family{fold}",),
            seed,
            logits(100 * fold + seed, 0.5 + gain, (f"family{fold}",)),
            logits(5000 + 100 * fold + seed, 0.5, (f"family{fold}",)),
        )
        for fold in range(folds)
        for seed in range(seeds)
    ]


def test_a_tie_counts_half() -> None:
    ranked = ranked_right(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    assert ranked.tolist() == [[0.5, 0.0], [1.0, 0.0]]


def test_the_difference_is_that_of_the_auc() -> None:
    """Of each family over seeds, and of their mean, as scikit-learn has it."""
    pairs = [
        PairedRun(("sd1", "ldm"), one, logits(one, 1.0), logits(9 + one, 0.4)) for one in (1, 2)
    ]
    found = difference(pairs, resamples=50)
    assert found is not None
    expected = {
        family: np.mean(
            [auc(dict(one.variant), family) - auc(dict(one.baseline), family) for one in pairs]
        )
        for family in ("sd1", "ldm")
    }
    assert {one: pytest.approx(found.families[one].value) for one in expected} == expected
    assert found.mean.value == pytest.approx(np.mean(list(expected.values())))


def test_a_family_has_the_interval_of_the_paired_bootstrap() -> None:
    """The study's bootstrap and that of an evaluation are one and the same, but for their draws."""
    pairs = [PairedRun(("sd1",), one, logits(one, 1.0), logits(9 + one, 0.4)) for one in (1, 2, 3)]
    kept = [
        [{key: one for key, one in run.items() if "ldm" not in key} for run in side]
        for side in ([one.variant for one in pairs], [one.baseline for one in pairs])
    ]
    theirs = paired_difference(kept[0], kept[1], resamples=2000).difference
    found = difference(pairs, resamples=2000)
    assert found is not None
    ours = found.families["sd1"]
    assert ours.value == pytest.approx(theirs.value, abs=1e-6)
    assert ours.low == pytest.approx(theirs.low, abs=0.015)
    assert ours.high == pytest.approx(theirs.high, abs=0.015)


def test_what_is_alike_for_both_cancels_out() -> None:
    """A detector is no better than itself, and the interval says so with certainty."""
    same = [PairedRun(("sd1", "ldm"), one, logits(one, 1.0), logits(one, 1.0)) for one in (1, 2)]
    found = difference(same, resamples=100)
    assert found is not None
    assert (found.mean.value, found.mean.low, found.mean.high) == (0, 0, 0)
    assert (found.signs.ahead, found.signs.behind, found.signs.p) == (0, 0, 1)


def test_a_gain_is_found_and_a_tie_is_not() -> None:
    """The interval of a clear gain is above zero; that of none holds it."""
    gained, none = difference(runs(2.0), resamples=400), difference(runs(0.0), resamples=400)
    assert gained is not None
    assert none is not None
    assert 0 < gained.mean.low < gained.mean.value < gained.mean.high
    assert (gained.signs.ahead, gained.signs.behind) == (2, 0)
    assert none.mean.low < 0 < none.mean.high


def test_of_new_families_less_is_known_than_of_these() -> None:
    """Where folds disagree, drawing them anew widens the interval."""
    mixed = runs(1.5, folds=1) + [
        PairedRun(("other",), one, logits(one, 0.5, ("other",)), logits(70 + one, 1.5, ("other",)))
        for one in range(3)
    ]
    found = difference(mixed, resamples=400)
    assert found is not None
    assert found.mean_any.high - found.mean_any.low > 1.5 * (found.mean.high - found.mean.low)
    assert (found.signs.ahead, found.signs.behind) == (1, 1)


def test_an_incomplete_grid_is_compared_as_far_as_it_goes() -> None:
    """A fold with one seed of three stays in, and nothing becomes undefined."""
    partial = [one for one in runs(1.0) if one.fold == ("family0",) or one.seed == 0]
    found = difference(partial, resamples=300)
    assert found is not None
    assert set(found.families) == {"family0", "family1"}
    assert all(np.isfinite([one.low, one.high]).all() for one in found.families.values())


def test_images_that_only_one_side_has_are_left_out() -> None:
    """An image skipped in one run cannot be paired."""
    mine, theirs = logits(1, 1.0), logits(2, 0.5)
    more = mine | {"fake/sd1/extra.png": 99.0, "real/bsds/extra.png": -99.0}
    one, other = (difference([PairedRun(("sd1",), 1, run, theirs)], 50) for run in (mine, more))
    assert one == other


def test_without_an_image_of_the_fold_there_is_nothing_to_compare() -> None:
    assert difference([PairedRun(("dalle3",), 1, logits(1, 1.0), logits(2, 1.0))], 50) is None


def test_the_sign_test_knows_chance() -> None:
    """Five of five: p = 2 / 32; a tie decides nothing."""
    assert signs([0.1, 0.2, 0.1, 0.3, 0.1]).p == pytest.approx(2 / 32)
    assert signs([0.1, -0.1, 0.0]) == signs([-0.2, 0.3])


def test_the_spread_is_over_seeds() -> None:
    """Each seed's mean counts once; a single seed has no spread."""
    found = spread({1: [0.6, 0.8], 2: [0.9, 0.9, 0.9]})
    assert found.mean == pytest.approx(0.8)
    assert found.seeds == 2
    assert found.std == pytest.approx(np.std([0.7, 0.9], ddof=1))
    assert spread({1: [0.6]}).std is None
