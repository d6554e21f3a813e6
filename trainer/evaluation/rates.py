"""How often images reach a shipped threshold: false alarms by source, and what is caught.

In: logits and what is shipped. Out: ``Rate`` with Wilson's interval. No errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engines.bundle.manifest import ThresholdSet
from trainer.evaluation.calibration import wilson_interval
from trainer.evaluation.families import Scored
from trainer.evaluation.resampling import Logits
from trainer.evaluation.shipped import Shipped, points

ALL = "all"  # sources together; the last of a threshold, where there are several


@dataclass(frozen=True)
class Rate:
    """Images of one source at or above one threshold; the interval is of 95 % (Wilson 1927)."""

    threshold_set: str
    source: str
    threshold: str  # "review" or "block"
    reached: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share."""
        return self.reached / self.n


def rate(
    source: str, threshold: str, logit_N: Logits, shipped: Shipped, thresholds: ThresholdSet
) -> Rate:
    """The share of images whose score is at or above a threshold of one of the shipped sets."""
    point = points(thresholds)[threshold]
    reached, count = int((shipped.score(logit_N) >= point.threshold).sum()), len(logit_N)
    interval = wilson_interval(reached, count)
    return Rate(thresholds.id, source, threshold, reached, count, *interval)


def rates(scored: Scored, label: int, shipped: Shipped) -> tuple[Rate, ...]:
    """Every folder of one class at every threshold of every set, then all of them together."""
    parts = {folder: scored.of(label, folder) for folder in scored.folders(label)}
    if len(parts) > 1:
        parts[ALL] = scored.of(label)
    return tuple(
        rate(source, threshold, logit_N, shipped, thresholds)
        for thresholds in shipped.sets
        for threshold in points(thresholds)
        for source, logit_N in parts.items()
    )


def by_threshold(rates: Sequence[Rate], threshold_set: str) -> list[list[Rate]]:
    """The rates of one set, a list for each of its thresholds; all sources together come last."""
    inside = [one for one in rates if one.threshold_set == threshold_set]
    bands = dict.fromkeys(one.threshold for one in inside)
    return [[one for one in inside if one.threshold == band] for band in bands]
