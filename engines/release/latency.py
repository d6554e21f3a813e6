"""How long two versions take over an image, timed in turns.

In: two open runtimes, each with a batch of its crops; a clock. Out: pairs of times, and the median of
their ratios with its interval. Errors: ``RuntimeFailure``, where inference fails.

Each pair is timed within moments, the one that goes first changing from pair to pair: what slows the
machine for longer slows both, and what slows it for a moment spoils a pair, not the median. A side's time is
the fastest of as many calls as the other's: other work can only add to it. Why so, and why the interval is
made of order statistics: docs/adr/0014.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.agreement import infer_all
from engines.manifest import Manifest
from engines.runtime import Runtime
from engines.runtime.batch import RGB_CHANNELS

Clock = Callable[[], float]  # seconds; only differences count

PAIRS: Final = 31
PAIRS_MIN: Final = 8  # fewer give no interval of 99 %
BUDGET_S: Final = 60.0  # from then on no pair is begun that is not needed
CALLS: Final = 3  # of each side of a pair; of unequal numbers the larger would find the faster call
WARM_UP_CALLS: Final = 2
_MISSED: Final = 0.01  # how often the interval may miss the true median
_SEED: Final = 2026


@dataclass(frozen=True)
class Work:
    """Whole images for one runtime.

    Attributes:
        runtime: whose time is taken.
        image_NHWC: all crops of the images.
        images: how many they are of.
    """

    runtime: Runtime
    image_NHWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    images: int

    def warm_up(self) -> None:
        """What is prepared at the first calls is no part of the latency."""
        for _ in range(WARM_UP_CALLS):
            infer_all(self.runtime, self.image_NHWC)

    def seconds(self, clock: Clock) -> float:
        """Of one image, by the fastest of a few batches."""
        return min(self._batch_s(clock) for _ in range(CALLS)) / self.images

    def _batch_s(self, clock: Clock) -> float:
        started_s = clock()
        infer_all(self.runtime, self.image_NHWC)
        return clock() - started_s


@dataclass(frozen=True)
class Interval:
    """A median and the interval that holds the true one in at least 99 % of all cases."""

    median: float
    low: float
    high: float


def whole_images(runtime: Runtime, manifest: Manifest, images: int) -> Work:
    """The work of so many large images, of noise: as many crops as the manifest ever takes of each."""
    spec, count = manifest.input, images * manifest.preprocess.max_crops
    shape = (count, spec.height_px, spec.width_px, RGB_CHANNELS)
    random = np.random.default_rng(_SEED)
    return Work(runtime, random.integers(0, 256, shape, dtype=np.uint8), images)


def timed_in_turns(one: Work, other: Work, clock: Clock) -> tuple[tuple[float, float], ...]:
    """Seconds of an image, of the one and of the other, pair by pair."""
    one.warm_up()
    other.warm_up()
    pairs: list[tuple[float, float]] = []
    started_s = clock()
    while len(pairs) < PAIRS_MIN or (len(pairs) < PAIRS and clock() - started_s < BUDGET_S):
        if len(pairs) % 2:
            second = other.seconds(clock)
            first = one.seconds(clock)
        else:
            first = one.seconds(clock)
            second = other.seconds(clock)
        pairs.append((first, second))
    return tuple(pairs)


def median_interval(values: Sequence[float]) -> Interval:
    """The median, and the narrowest pair of order statistics that holds it; nothing is assumed normal.

    The true median lies below the k-th smallest of n values with the probability that fewer than k of n
    fair coins show heads, and so above the k-th largest.

    Raises:
        ValueError: so few values that even their ends are no interval of 99 %.
    """
    count, rank = len(values), 0
    while _tail(count, rank + 1) <= _MISSED / 2:
        rank += 1
    if rank == 0:
        raise ValueError(f"{count} values give no interval of 99 %: {PAIRS_MIN} do")
    ordered = sorted(values)
    return Interval(median(ordered), ordered[rank - 1], ordered[count - rank])


def _tail(count: int, rank: int) -> float:
    """The probability that fewer than ``rank`` of ``count`` fair coins show heads."""
    return float(sum(math.comb(count, heads) for heads in range(rank)) / 2**count)
