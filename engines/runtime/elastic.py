"""A device's engine that takes smaller batches when memory runs out, behind the one protocol.

In: how an executor is made for a batch. Out: a ``Runtime``.
Errors: ``DeviceLost`` once nothing can succeed any more; ``RuntimeFailure`` for all else.

``batch_max`` is what one pass over the device holds now. ``infer`` goes on taking every batch that
the manifest allows: a caller that read ``batch_max`` before it was halved is not in the wrong.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from engines.cuda import CudaError, Fault
from engines.manifest import InputSpec
from engines.runtime.batch import check_batch, check_logits
from engines.runtime.plans import halved
from engines.runtime.protocol import DeviceLost, RuntimeFailure

_log = structlog.get_logger(__name__)


class Executor(Protocol):
    """An engine with its buffers, for passes of a fixed largest size."""

    def run(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [N] of any number of crops; ``CudaError``."""
        ...

    def close(self) -> None:
        """Give back what is held on the device; never raises."""
        ...


@dataclass(frozen=True)
class Identity:
    """What a loaded engine is called."""

    name: str
    precision: str
    engine_sha256: str


class ElasticRuntime:
    """A ``Runtime`` on an executor; ``infer`` may be called from any thread, one at a time."""

    def __init__(
        self, identity: Identity, spec: InputSpec, make: Callable[[int], Executor], most: int
    ) -> None:
        """Make the executor for ``most`` crops, or for as many as memory holds.

        Raises:
            CudaError: not even one crop fits, or the device failed.
        """
        self._identity, self._spec = identity, spec
        self._make: Callable[[int], Executor] | None = make  # None: closed
        self._lock = threading.Lock()
        self._most = most
        self._executor: Executor | None = None
        self._prepared()

    @property
    def name(self) -> str:
        """``tensorrt`` or ``tensorrt-rtx``."""
        return self._identity.name

    @property
    def precision(self) -> str:
        """What the plan computes in."""
        return self._identity.precision

    @property
    def engine_sha256(self) -> str:
        """SHA-256 of the plan's bytes."""
        return self._identity.engine_sha256

    @property
    def batch_max(self) -> int:
        """The most crops that one pass over the device holds now."""
        return self._most

    def infer(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits, float32 [N], of uint8 crops [N, S, S, 3]; see ``Runtime.infer``."""
        check_batch(image_NHWC, self._spec)
        with self._lock:
            return check_logits(self._run(image_NHWC), len(image_NHWC))

    def close(self) -> None:
        """Free the engine."""
        with self._lock:
            if self._executor is not None:
                self._executor.close()
            # What makes executors holds the engine, whose weights lie on the device.
            self._executor = self._make = None

    def _run(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        while True:
            try:
                return self._prepared().run(image_NHWC)
            except CudaError as error:
                if not self._halve(error):
                    raise self._failure(error, len(image_NHWC)) from error

    def _prepared(self) -> Executor:
        """The executor; made, if there is none, for as many crops as memory holds."""
        while self._executor is None:
            if self._make is None:
                raise RuntimeFailure("the runtime was closed: open the bundle again")
            try:
                self._executor = self._make(self._most)
            except CudaError as error:
                if not self._halve(error):
                    raise
        return self._executor

    def _halve(self, error: CudaError) -> bool:
        """Make room for a smaller batch; false where that does not help."""
        smaller = halved(self._most)
        if error.fault is not Fault.MEMORY or smaller is None:
            return False
        _log.warning("batch_halved", runtime=self.name, batch_max=smaller, reason=str(error))
        if self._executor is not None:
            self._executor.close()
        self._executor = None  # its memory is free before the next one asks for some
        self._most = smaller
        return True

    def _failure(self, error: CudaError, count: int) -> RuntimeFailure:
        if error.fault is Fault.LOST:
            return DeviceLost(f"{self.name} lost its device ({error}): restart the process")
        return RuntimeFailure(f"{self.name} failed on {count} crops: {error}")
