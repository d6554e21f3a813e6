"""A candidate beside the version in place, on this machine: latency, and the golden outputs everywhere.

In: a candidate's verified directory, the store and the version in place. Out: ``Latency`` and ``Parity``.
Errors: ``StoreError``, where the store goes away; ``BundleError``, where the candidate itself cannot be
loaded. That the version in place cannot be run here is no error, but stands in what was measured.
"""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.bundle.golden import infer_all
from engines.bundle.keys import Trust
from engines.bundle.manifest import BundleError, Manifest
from engines.bundle.verify import Bundle, load_bundle, read_bundle
from engines.parity.report import NOT_EXPORTED, How, Variant, verify_runtimes
from engines.release.layout import materialise
from engines.release.records import Agreed, Latency, NoLatency, Parity, Side, Version
from engines.release.store import Store, StoreError
from engines.runtime import Runtime, RuntimeFailure
from engines.runtime.machine import this_machine
from engines.runtime.protocol import RGB_CHANNELS

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


_MS_PER_S: Final = 1000.0


@dataclass(frozen=True)
class Timing:
    """How latency is compared.

    Attributes:
        images: in a batch.
        skip: it is not; for a machine unlike those that will run the candidate.
    """

    images: int = 1
    skip: bool = False


USUAL: Final = Timing()


def measure_parity(directory: Path, trust: Trust, now: datetime) -> Parity:
    """What ``verify --all-runtimes`` finds, without its timings; golden outputs are what counts."""
    machine = this_machine()
    report = verify_runtimes(
        read_bundle(directory, machine, trust), machine, How(repetitions=0), now
    )
    return Parity(
        checked=tuple(_agreed(one) for one in report.variants if one.golden and not one.problems),
        problems=tuple(
            f"{one.runtime} {one.precision} ({one.path}): {problem}"
            for one in report.variants
            for problem in one.problems
        ),
        not_checked=tuple(str(one) for one in report.passed_over if one.why != NOT_EXPORTED),
    )


def measure_latency(
    store: Store, candidate: Bundle, before: Version | None, trust: Trust, timing: Timing,
    clock: Clock = time.perf_counter,
) -> Latency | NoLatency:  # fmt: skip
    """Time the candidate, which is open, and the version in place, as the store gives it back."""
    if before is None:
        return NoLatency(why="the channel was empty")
    if timing.skip:
        return NoLatency(why="skipped, as was asked for")
    with tempfile.TemporaryDirectory(prefix="synthgate-in-place-") as directory:
        copy = Path(directory) / "bundle"
        try:
            materialise(store, before, copy, trust)
            in_place = load_bundle(copy, trust=trust)
        except StoreError:
            raise
        except BundleError as error:
            why = f"{before}, which is in place, cannot be run here ({error})"
            return NoLatency(why=why, against=True)
        with closing(in_place.runtime):
            return _latency(candidate, in_place, timing.images, clock)


def _latency(candidate: Bundle, in_place: Bundle, images: int, clock: Clock) -> Latency | NoLatency:
    new = whole_images(candidate.runtime, candidate.manifest, images)
    old = whole_images(in_place.runtime, in_place.manifest, images)
    try:
        pairs = timed_in_turns(new, old, clock)
    except RuntimeFailure as error:
        return NoLatency(why=f"inference failed while it was timed ({error})", against=True)
    found: Interval = median_interval([first / second for first, second in pairs])
    return Latency(
        ratio=found.median,
        low=found.low,
        high=found.high,
        pairs=len(pairs),
        images=images,
        candidate=_side(candidate, new, [first for first, _ in pairs]),
        in_place=_side(in_place, old, [second for _, second in pairs]),
    )


def _side(bundle: Bundle, work: Work, image_s: list[float]) -> Side:
    return Side(
        version=bundle.manifest.version,
        runtime=bundle.runtime.name,
        precision=bundle.runtime.precision,
        crops=len(work.image_NHWC) // work.images,
        image_ms=median(image_s) * _MS_PER_S,
    )


def _agreed(variant: Variant) -> Agreed:
    golden = variant.golden
    if golden is None:
        raise ValueError(f"{variant.path} was not compared with the golden outputs")
    most = max(golden.changed, key=lambda one: one.changed)
    return Agreed(
        runtime=variant.runtime,
        precision=variant.precision,
        path=variant.path,
        max_difference=golden.max_difference,
        tolerance=golden.tolerance,
        changed=most.changed,
        of=most.of,
    )
