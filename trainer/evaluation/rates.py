"""How often images reach a shipped threshold: false alarms by source, and what is caught.

In: logits and what is shipped. Out: ``Rate`` with Wilson's interval. No errors.
"""

from dataclasses import dataclass

from trainer.evaluation.calibration import wilson_interval
from trainer.evaluation.families import Scored
from trainer.evaluation.resampling import Logits
from trainer.evaluation.shipped import Shipped


@dataclass(frozen=True)
class Rate:
    """Images of one source at or above one threshold; the interval is of 95 % (Wilson 1927)."""

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


def rate(source: str, threshold: str, logit_N: Logits, shipped: Shipped) -> Rate:
    """The share of images whose score is at or above a threshold."""
    point = shipped.points()[threshold]
    reached = int((shipped.score(logit_N) >= point.threshold).sum())
    return Rate(source, threshold, reached, len(logit_N), *wilson_interval(reached, len(logit_N)))


def rates(scored: Scored, label: int, shipped: Shipped) -> tuple[Rate, ...]:
    """Every folder of one class at every threshold, then all of them together."""
    found = []
    for threshold in shipped.points():
        found += [
            rate(folder, threshold, scored.of(label, folder), shipped)
            for folder in scored.folders(label)
        ]
        if len(scored.folders(label)) > 1:
            found.append(rate("all", threshold, scored.of(label), shipped))
    return tuple(found)
