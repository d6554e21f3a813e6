"""Engines for unit tests: real tiny ones, and ones that fail on given inputs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.bundle.verify import load_bundle
from engines.runtime import Runtime, RuntimeFailure
from tests.support.bundles import make_tiny_bundle
from worker.engine import Engine, Role, make_engine

BATCH_MAX = 4


def make_tiny_engine(
    directory: Path,
    role: Role = "deciding",
    *,
    version: str = "0.1.0",
    crop_px: int = 32,
    bias: float = 0.125,
) -> Engine:
    """A real engine, of a bundle written into the directory."""
    bundle = load_bundle(make_tiny_bundle(directory, version=version, crop_px=crop_px, bias=bias))
    return make_engine(bundle, role, "enforce" if role == "deciding" else role, None)


def with_runtime(engine: Engine, runtime: Runtime) -> Engine:
    """The same engine on another runtime."""
    return replace(engine, bundle=replace(engine.bundle, runtime=runtime))


class FaultyRuntime:
    """An engine that fails on crops of some grey levels; others' logit is the level.

    Args:
        fails_on: Levels that break it, whatever else is in the call.
        error: What it raises then.
        call_max: It runs out of memory past so many crops a call.
    """

    name = "faulty"
    precision = "fp32"
    engine_sha256 = "0" * 64
    batch_max = BATCH_MAX

    def __init__(
        self,
        *fails_on: int,
        error: type[Exception] = RuntimeFailure,
        call_max: int = BATCH_MAX,
    ) -> None:
        self._fails_on = set(fails_on)
        self._error = error
        self._call_max = call_max
        self.calls: list[list[int]] = []
        self.closed = False

    def infer(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [N], or the failure."""
        levels = image_NHWC[:, 0, 0, 0].tolist()
        self.calls.append(levels)
        assert 1 <= len(levels) <= self.batch_max
        if self._fails_on & set(levels):
            raise self._error(f"broken by {levels}")
        if len(levels) > self._call_max:
            raise MemoryError("too many crops")
        return image_NHWC[:, 0, 0, 0].astype(np.float32)

    def close(self) -> None:
        """Note that it was freed."""
        self.closed = True
