"""A candidate beside the version in place, on this machine: latency, and the golden outputs everywhere.

In: a candidate's verified directory, the store and the version in place. Out: ``Latency`` and ``Parity``.
Errors: ``StoreError``, where the store goes away; ``BundleError``, where the candidate itself cannot be
loaded. That the version in place cannot be run here is no error, but stands in what was measured.
"""

import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Final

from engines.keys import Trust
from engines.manifest import BundleError
from engines.parity.report import NOT_EXPORTED, How, Variant, verify_runtimes
from engines.release.latency import (
    Clock,
    Interval,
    Work,
    median_interval,
    timed_in_turns,
    whole_images,
)
from engines.release.layout import materialise
from engines.release.measurements import Agreed, Latency, NoLatency, Parity, Side
from engines.release.records import Version
from engines.release.store import Store, StoreError
from engines.runtime import RuntimeFailure
from engines.runtime.machine import this_machine
from engines.verify import Bundle, load_bundle, read_bundle

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
