"""How fast a runtime is, by batch size.

In: an open runtime. Out: latency and throughput, as the median and the ends of some repetitions.
Errors: ``RuntimeFailure`` if inference fails.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

import numpy as np

from engines.bundle.manifest import InputSpec
from engines.runtime import Runtime
from engines.runtime.protocol import crop_shape

Clock = Callable[[], float]  # seconds; only differences count

_WARM_UP_CALLS: Final = 2
_CALLS_MIN: Final = 3  # in a repetition, however long a call takes
_MS_PER_S: Final = 1000.0
_SEED: Final = 2026


@dataclass(frozen=True)
class Spread:
    """The median of some repetitions, with the lowest and the highest."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Speed:
    """The time of a call with ``batch`` crops; a repetition counts with the mean of its calls."""

    batch: int
    repetitions: int
    latency_ms: Spread
    images_per_s: Spread


def batch_sizes(spec: InputSpec, batch_max: int) -> tuple[int, ...]:
    """The sizes to measure: the manifest's least, best and largest, limited to ``batch_max``."""
    wanted = {spec.batch_min, spec.batch_opt, spec.batch_max}
    return tuple(sorted({min(size, batch_max) for size in wanted}))


def measure_speed(
    runtime: Runtime, spec: InputSpec, clock: Clock, *, repetitions: int, repetition_s: float
) -> tuple[Speed, ...]:
    """Time the runtime on noise, by batch size, after a warm-up.

    Args:
        runtime: the runtime to time.
        spec: gives the batch sizes and the size of a crop.
        clock: for instance ``time.perf_counter``.
        repetitions: the number of means behind a median.
        repetition_s: the duration of a repetition; a call is never cut short.
    """
    random = np.random.default_rng(_SEED)
    speeds = []
    for batch in batch_sizes(spec, runtime.batch_max):
        image_NHWC = random.integers(0, 256, (batch, *crop_shape(spec)), dtype=np.uint8)
        for _ in range(_WARM_UP_CALLS):
            runtime.infer(image_NHWC)
        latencies_ms = [
            _mean_s(partial(runtime.infer, image_NHWC), clock, repetition_s) * _MS_PER_S
            for _ in range(repetitions)
        ]
        rates = [batch * _MS_PER_S / latency_ms for latency_ms in latencies_ms]
        speeds.append(Speed(batch, repetitions, _spread(latencies_ms), _spread(rates)))
    return tuple(speeds)


def _mean_s(call: Callable[[], object], clock: Clock, repetition_s: float) -> float:
    calls, started_s = 0, clock()
    while True:
        call()
        calls += 1
        elapsed_s = clock() - started_s
        if calls >= _CALLS_MIN and elapsed_s >= repetition_s:
            return elapsed_s / calls


def _spread(values: list[float]) -> Spread:
    return Spread(median(values), min(values), max(values))
