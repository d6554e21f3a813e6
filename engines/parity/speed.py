"""How fast a runtime is, by batch size.

In: an open runtime. Out: latency and throughput, the median and the spread of some repetitions.
Errors: ``RuntimeFailure``, where inference fails.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

import numpy as np

from engines.bundle.manifest import InputSpec
from engines.runtime import Runtime
from engines.runtime.protocol import RGB_CHANNELS

Clock = Callable[[], float]  # seconds; only differences count

_WARM_UP_CALLS: Final = 2
_CALLS_MIN: Final = 3  # in a repetition, however long one call takes
_MS_PER_S: Final = 1000.0
_SEED: Final = 2026


@dataclass(frozen=True)
class Spread:
    """The median of some repetitions, and the ends."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Speed:
    """What a call with ``batch`` crops takes; in a repetition the mean of its calls counts."""

    batch: int
    repetitions: int
    latency_ms: Spread
    images_per_s: Spread


def batches(spec: InputSpec, batch_max: int) -> tuple[int, ...]:
    """The sizes to measure: the manifest's least, best and most, as far as the runtime takes them."""
    wanted = {spec.batch_min, spec.batch_opt, spec.batch_max}
    return tuple(sorted({min(one, batch_max) for one in wanted}))


def measure_speed(
    runtime: Runtime, spec: InputSpec, clock: Clock, *, repetitions: int, repetition_s: float
) -> tuple[Speed, ...]:
    """Time the runtime on noise, a batch size at a time, after a warm-up.

    Args:
        runtime: what is timed.
        spec: its batch sizes, and the crops' size.
        clock: for instance ``time.perf_counter``.
        repetitions: how many means make a median.
        repetition_s: how long one goes on; a call is never cut short.
    """
    random = np.random.default_rng(_SEED)
    found = []
    for batch in batches(spec, runtime.batch_max):
        shape = (batch, spec.height_px, spec.width_px, RGB_CHANNELS)
        image_NHWC = random.integers(0, 256, shape, dtype=np.uint8)
        for _ in range(_WARM_UP_CALLS):
            runtime.infer(image_NHWC)
        latencies_ms = [
            _mean_s(partial(runtime.infer, image_NHWC), clock, repetition_s) * _MS_PER_S
            for _ in range(repetitions)
        ]
        rates = [batch * _MS_PER_S / one for one in latencies_ms]
        found.append(Speed(batch, repetitions, _spread(latencies_ms), _spread(rates)))
    return tuple(found)


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
