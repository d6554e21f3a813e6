"""A candidate and the version in place on this machine: latency, and golden outputs everywhere.

In: a candidate's verified directory, the store and the version in place. Out: ``Latency`` and
``Parity``. Errors: ``StoreError`` if the store is unavailable; ``BundleError`` if the candidate cannot
be loaded. If the version in place cannot run here, the measurement says so.

Latency is timed in pairs: both versions run directly after each other, and the order alternates between
pairs. A slow machine slows both sides, and a short disturbance spoils one pair, not the median. The time
of a side is its fastest call, because other work can only add to it. docs/adr/0014 gives the reasons.
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
from engines.parity.report import NOT_EXPORTED, ReportOptions, Variant, verify_runtimes
from engines.release.layout import materialise
from engines.release.records import (
    Latency,
    NoLatency,
    Parity,
    RuntimeAgreement,
    TimedVersion,
    Version,
)
from engines.release.store import Store, StoreError
from engines.runtime import Runtime, RuntimeFailure
from engines.runtime.machine import this_machine
from engines.runtime.protocol import crop_shape

Clock = Callable[[], float]  # seconds; only differences count

PAIRS: Final = 31
PAIRS_MIN: Final = 8  # fewer give no interval of 99 %
BUDGET_S: Final = 60.0  # after it no pair is started beyond PAIRS_MIN
CALLS: Final = 3  # of each side of a pair; unequal numbers would favour the larger
WARM_UP_CALLS: Final = 2
_MISSED: Final = 0.01  # how often the interval may miss the true median
_MS_PER_S: Final = 1000.0
_SEED: Final = 2026


@dataclass(frozen=True)
class Timing:
    """How latency is compared.

    Attributes:
        images: whole images in a batch.
        skip: do not compare; for a machine unlike those that will run the candidate.
    """

    images: int = 1
    skip: bool = False


USUAL: Final = Timing()


@dataclass(frozen=True)
class TimedBatch:
    """A batch of whole images for one runtime.

    Attributes:
        runtime: the runtime to time.
        image_NHWC: all crops of the images.
        images: the number of images.
    """

    runtime: Runtime
    image_NHWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    images: int

    def warm_up(self) -> None:
        """Make the first calls, whose preparations are not part of the latency."""
        for _ in range(WARM_UP_CALLS):
            infer_all(self.runtime, self.image_NHWC)

    def seconds(self, clock: Clock) -> float:
        """The time of one image, from the fastest of a few batches."""
        return min(self._batch_s(clock) for _ in range(CALLS)) / self.images

    def _batch_s(self, clock: Clock) -> float:
        started_s = clock()
        infer_all(self.runtime, self.image_NHWC)
        return clock() - started_s


@dataclass(frozen=True)
class RatioInterval:
    """A median ratio, with an interval that contains the true median in at least 99 % of all cases."""

    median: float
    low: float
    high: float


def whole_images(runtime: Runtime, manifest: Manifest, images: int) -> TimedBatch:
    """A batch of noise images, each with the most crops that the manifest allows."""
    count = images * manifest.preprocess.max_crops
    random = np.random.default_rng(_SEED)
    shape = (count, *crop_shape(manifest.input))
    return TimedBatch(runtime, random.integers(0, 256, shape, dtype=np.uint8), images)


def time_alternately(
    first: TimedBatch, second: TimedBatch, clock: Clock
) -> tuple[tuple[float, float], ...]:
    """Seconds per image of both batches, pair by pair."""
    first.warm_up()
    second.warm_up()
    pairs: list[tuple[float, float]] = []
    started_s = clock()
    while len(pairs) < PAIRS_MIN or (len(pairs) < PAIRS and clock() - started_s < BUDGET_S):
        if len(pairs) % 2:
            second_s = second.seconds(clock)
            first_s = first.seconds(clock)
        else:
            first_s = first.seconds(clock)
            second_s = second.seconds(clock)
        pairs.append((first_s, second_s))
    return tuple(pairs)


def median_interval(values: Sequence[float]) -> RatioInterval:
    """The median, and the narrowest pair of order statistics around it, for any distribution.

    The probability that the true median lies below the k-th smallest of n values is that of fewer
    than k heads among n fair coins. The same holds above the k-th largest.

    Raises:
        ValueError: too few values for an interval of 99 %.
    """
    count, rank = len(values), 0
    while _tail(count, rank + 1) <= _MISSED / 2:
        rank += 1
    if rank == 0:
        raise ValueError(f"{count} values give no interval of 99 %: {PAIRS_MIN} do")
    ordered = sorted(values)
    return RatioInterval(median(ordered), ordered[rank - 1], ordered[count - rank])


def _tail(count: int, rank: int) -> float:
    """The probability that fewer than ``rank`` of ``count`` fair coins show heads."""
    return float(sum(math.comb(count, heads) for heads in range(rank)) / 2**count)


def measure_latency(
    store: Store,
    candidate: Bundle,
    before: Version | None,
    trust: Trust,
    timing: Timing,
    clock: Clock = time.perf_counter,
) -> Latency | NoLatency:
    """Time the candidate, which is open, and the version in place, loaded from the store."""
    if before is None:
        return NoLatency(why="the channel was empty")
    if timing.skip:
        return NoLatency(why="skipped on request")
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
        pairs = time_alternately(new, old, clock)
    except RuntimeFailure as error:
        return NoLatency(why=f"inference failed while it was timed ({error})", against=True)
    interval = median_interval([new_s / old_s for new_s, old_s in pairs])
    return Latency(
        ratio=interval.median,
        low=interval.low,
        high=interval.high,
        pairs=len(pairs),
        images=images,
        candidate=_timed_version(candidate, new, [new_s for new_s, _ in pairs]),
        in_place=_timed_version(in_place, old, [old_s for _, old_s in pairs]),
    )


def _timed_version(bundle: Bundle, batch: TimedBatch, image_s: list[float]) -> TimedVersion:
    return TimedVersion(
        version=bundle.manifest.version,
        runtime=bundle.runtime.name,
        precision=bundle.runtime.precision,
        crops=len(batch.image_NHWC) // batch.images,
        image_ms=median(image_s) * _MS_PER_S,
    )


def measure_parity(directory: Path, trust: Trust, now: datetime) -> Parity:
    """Compare every runtime with the golden outputs, as ``verify --all-runtimes`` without timings."""
    machine = this_machine()
    verified = read_bundle(directory, machine, trust)
    report = verify_runtimes(verified, machine, ReportOptions(repetitions=0), now)
    return Parity(
        checked=tuple(
            _agreement(variant)
            for variant in report.variants
            if variant.golden and not variant.problems
        ),
        problems=tuple(
            f"{variant.runtime} {variant.precision} ({variant.path}): {problem}"
            for variant in report.variants
            for problem in variant.problems
        ),
        not_checked=tuple(
            str(runtime) for runtime in report.skipped if runtime.why != NOT_EXPORTED
        ),
    )


def _agreement(variant: Variant) -> RuntimeAgreement:
    golden = variant.golden
    if golden is None:
        raise ValueError(f"{variant.path} was not compared with the golden outputs")
    most = max(golden.changed, key=lambda change: change.changed)
    return RuntimeAgreement(
        runtime=variant.runtime,
        precision=variant.precision,
        path=variant.path,
        max_difference=golden.max_difference,
        tolerance=golden.tolerance,
        changed=most.changed,
        of=most.of,
    )
