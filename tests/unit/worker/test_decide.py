"""A score becomes a band; a block by the score alone needs to be asked for."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.bundle.manifest import OperatingPoint, ThresholdSet
from worker.decide import ABOVE_BLOCK, ABOVE_REVIEW, NOT_CORROBORATED, decide


def thresholds(review: float = 0.5, block: float = 0.9) -> ThresholdSet:
    """A set with these two points."""
    points = {
        name: OperatingPoint(threshold=at, fpr=0.1, fpr_ci_low=0.05, fpr_ci_high=0.2, n_real=100)
        for name, at in (("review", review), ("block", block))
    }
    return ThresholdSet(id="default", measured_on="tests", **points)


@pytest.mark.parametrize(
    ("probability", "policy", "band", "reasons"),
    [
        (0.0, "threshold", "allow", ()),
        (0.4999, "corroborated", "allow", ()),
        (0.5, "corroborated", "review", (ABOVE_REVIEW,)),
        (0.8999, "threshold", "review", (ABOVE_REVIEW,)),
        (0.9, "threshold", "block", (ABOVE_BLOCK,)),
        (0.9, "corroborated", "review", (ABOVE_BLOCK, NOT_CORROBORATED)),
        (1.0, "corroborated", "review", (ABOVE_BLOCK, NOT_CORROBORATED)),
    ],
)
def test_bands_begin_at_their_thresholds(
    probability: float,
    policy: Literal["corroborated", "threshold"],
    band: str,
    reasons: tuple[str, ...],
) -> None:
    """At the threshold an image is in the band; below, it is not."""
    decision = decide(probability, thresholds(), policy)
    assert (decision.probability, decision.band, decision.reasons) == (probability, band, reasons)


@given(
    probability=st.floats(0, 1),
    points=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_a_score_alone_never_blocks_unless_asked(probability: float, points: list[float]) -> None:
    """The policies differ only above the block threshold, and only in block against review."""
    at = thresholds(*points)
    careful, strict = decide(probability, at, "corroborated"), decide(probability, at, "threshold")
    assert careful.band != "block"
    assert (strict.band == "block") == (probability >= points[1])
    assert (careful.band == "allow") == (strict.band == "allow") == (probability < points[0])
    assert bool(careful.reasons) == (careful.band != "allow")
