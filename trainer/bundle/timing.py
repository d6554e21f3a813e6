"""How long graphs take beside each other, on one thread of ONNX Runtime.

In: exported graphs, and how many crops each gets at once. Out: the milliseconds of every call. Errors:
those of ONNX Runtime.

The graphs take turns, so that whatever else the machine does strikes each of them alike: of two
figures of one turn the ratio is worth more than either (docs/adr/0014).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

_WARM_UP = 5


@dataclass(frozen=True)
class Load:
    """A graph that takes ``image_NHWC`` uint8 [crops, crop_px, crop_px, 3]."""

    path: Path
    crop_px: int
    crops: int = 1


def in_turns(loads: Mapping[str, Load], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Milliseconds [rounds] of each load, by name; the i-th of all are of one turn."""
    random = np.random.default_rng(0)
    sessions = {path: _session(path) for path in {one.path for one in loads.values()}}
    images = {
        name: random.integers(0, 256, (one.crops, one.crop_px, one.crop_px, 3), dtype=np.uint8)
        for name, one in loads.items()
    }
    took_ms: dict[str, list[float]] = {name: [] for name in loads}
    for turn in range(_WARM_UP + rounds):
        for name, load in loads.items():
            started_s = time.perf_counter()
            sessions[load.path].run(["logit_N"], {"image_NHWC": images[name]})
            if turn >= _WARM_UP:
                took_ms[name].append((time.perf_counter() - started_s) * 1000)
    return {name: np.array(values) for name, values in took_ms.items()}


def _session(path: Path) -> Any:  # noqa: ANN401  onnxruntime ships no types
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
