"""A run that did not learn its target is not called ANL."""

from pathlib import Path

import pytest

from tests.support.trainer import tiny_config
from trainer.config import Config
from trainer.training.checkpoint import Best
from trainer.training.claim import unlearnt


def best(explained: float | None) -> Best:
    """Weights that explain so much."""
    return Best({}, 1, 0.9, explained, None)


def config(noise: float = 1.0, least: float = 0.3) -> Config:
    """A run with a noise loss of this weight, and this bar."""
    changes = {
        "[train]": f"[loss]\nlambda_noise = {noise}\n[train]",
        "min_explained_variance = 1.0": f"min_explained_variance = {least}",
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
    """Nor does a run whose owner took the bar away."""
    assert unlearnt(config(noise=0.0), best(None)) is None
    assert unlearnt(config(least=0.0), best(0.01)) is None
