"""How many pictures of other kinds are flagged where a given share of the photographs is.

In: the logits of photographs and of pictures that stand apart. Out: ``Flagged`` by how many of the
photographs are flagged. No errors.

Thresholds are set on photographs. Of two detectors that rank those alike, one may flag twice as many drawings
where it flags as many photographs as the other, and no ranking of photographs and generated pictures says so.
"""

import zlib
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.families import Scored
from trainer.evaluation.metrics import Bootstrap
from trainer.evaluation.resampling import (
    Interval,
    Values,
    figures,
    interval,
    of_the_sample,
    resampled_counts,
)

# The figure of a ranking that says what share of the one class is above all but so many of the other, and how
# many of those it takes before a single one may be.
_RATES = {"5 %": ("tpr_at_fpr_5", 20), "1 %": ("tpr_at_fpr_1", 100)}


@dataclass(frozen=True)
class Flagged:
    """The share of the pictures of other kinds, the mean over their folders.

    Attributes:
        value: of the pictures themselves, in [0, 1].
        sample_R: of each resample of the photographs and of those pictures.
    """

    value: float
    sample_R: Values  # noqa: N815  the suffix is the tensor's shape

    @property
    def interval(self) -> Interval:
        """With its 95 %."""
        return interval(self.value, self.sample_R)

    def less(self, first: "Flagged") -> Interval:
        """What is beyond the first's, which is of the same draws of the same pictures."""
        return interval(self.value - first.value, self.sample_R - first.sample_R)


def flagged(photographs: Scored, apart: Scored, bootstrap: Bootstrap) -> dict[str, Flagged]:
    """By the share of the photographs that is flagged; what these are too few for is left out.

    A folder counts the same however many pictures it has: which of them is large is an accident.

    Args:
        photographs: scored pictures of a split; its real ones count.
        apart: real pictures of other kinds, none of them among the photographs.
        bootstrap: of the intervals.
    """
    real_N = photographs.of(0)
    random = np.random.default_rng((bootstrap.seed, 0))
    real_count_RN = resampled_counts(len(real_N), bootstrap.resamples, random)
    wholes, samples = [], []
    for folder in apart.folders(0):
        other_M = apart.of(0, folder)
        own = np.random.default_rng((bootstrap.seed, 2, zlib.crc32(folder.encode())))
        count_RM = resampled_counts(len(other_M), bootstrap.resamples, own)
        samples.append(figures(real_N, other_M, real_count_RN, count_RM))
        wholes.append(of_the_sample(real_N, other_M))
    return {
        rate: Flagged(
            float(np.mean([one[figure] for one in wholes])),
            np.mean([one[figure] for one in samples], axis=0),
        )
        for rate, (figure, least) in _RATES.items()
        if wholes and len(real_N) >= least
    }
