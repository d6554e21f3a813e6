"""A run that did not learn its target is not called ANL, and what is known of it before training."""

from pathlib import Path

import pytest

from tests.support.trainer import tiny_config
from trainer.config import Config
from trainer.training.checkpoint import Best, anl_doubts, unlearnt


def best(explained: float | None) -> Best:
    """Weights that explain so much."""
    return Best({}, 1, 0.9, explained, None)


def config(noise: float = 1.0, least: float = 0.3, share: float = 0.5) -> Config:
    """A run with a noise loss of this weight, this bar, and this share of crops with targets."""
    changes = {
        "[train]": f"[loss]\nlambda_noise = {noise}\n[train]",
        "min_explained_variance = 1.0": f"min_explained_variance = {least}",
        "share = 0.5": f"share = {share}",
    }
    return tiny_config(Path("data"), changes)


@pytest.mark.parametrize(("explained", "counts"), [(0.299, False), (0.3, True), (-0.5, False)])
def test_the_bar_is_the_share_explained(explained: float, *, counts: bool) -> None:
    """At it or above, the run counts; below, the sentence has both figures."""
    why_not = unlearnt(config(), best(explained))
    assert (why_not is None) == counts
    if why_not:
        assert f"{explained:.1%}" in why_not
        assert "30%" in why_not


def test_what_was_never_measured_does_not_count() -> None:
    """A run without validation images cannot claim anything."""
    assert "never measured" in str(unlearnt(config(), best(None)))


def test_a_plain_backbone_claims_nothing() -> None:
    """Nor does a run whose owner took the bar away; neither is doubted before."""
    for claimless in (config(noise=0.0), config(least=0.0)):
        assert unlearnt(claimless, best(None)) is None
        assert anl_doubts(claimless, 0) == ()


def test_doubts_are_known_before_training() -> None:
    """Without a validation image nothing is measured; without a target nothing is learnt."""
    assert anl_doubts(config(), 5) == ()
    assert "name folders in data.splits.validation" in anl_doubts(config(), 0)[0]
    assert "raise teacher.share" in anl_doubts(config(share=0.01), 5)[0]
