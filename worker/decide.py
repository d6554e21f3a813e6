"""Decide: from a score to a band and its reasons. Pure.

``review`` asks a person; ``block`` acts. A classifier alone is wrong too often to act on, so by default
(``corroborated``) a score above the block threshold asks for review until another signal agrees.
"""

from typing import Literal

from engines.bundle.manifest import ThresholdSet
from worker.types import Decided, Decision, Scored

ABOVE_REVIEW = "classifier_above_review_threshold"
ABOVE_BLOCK = "classifier_above_block_threshold"
NOT_CORROBORATED = "block_not_corroborated"

BlockPolicy = Literal["corroborated", "threshold"]


def decided(scored: Scored, block_policy: BlockPolicy, now_s: float) -> Decided:
    """The decision about a scored image, by the calibration and thresholds of its engine."""
    engine = scored.engine
    probability = engine.bundle.manifest.score(scored.score.logit)
    decision = decide(probability, engine.thresholds, block_policy)
    return Decided(
        scored.event, scored.image, engine, scored.score, scored.from_cache, decision, now_s
    )


def decide(probability: float, thresholds: ThresholdSet, block_policy: BlockPolicy) -> Decision:
    """The band of one image.

    Args:
        probability: P(AI-generated) in [0, 1], after calibration.
        thresholds: The review and block thresholds of the bundle, in [0, 1].
        block_policy: ``threshold`` blocks on the score alone; ``corroborated`` never does.
    """
    if probability >= thresholds.block.threshold:
        if block_policy == "threshold":
            return Decision(probability, "block", (ABOVE_BLOCK,))
        return Decision(probability, "review", (ABOVE_BLOCK, NOT_CORROBORATED))
    if probability >= thresholds.review.threshold:
        return Decision(probability, "review", (ABOVE_REVIEW,))
    return Decision(probability, "allow", ())
