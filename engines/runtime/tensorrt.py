"""TensorRT and TensorRT-RTX on an NVIDIA GPU, with plans that were compiled for it.

In: a manifest and the verified bytes of its files. Out: a ``Runtime``.
Errors: ``BundleError`` without a driver, a library or a plan for this GPU and release, or for a plan
that cannot be loaded; each says what to do. The manifest and the plan's header are checked first,
because deserialising a plan runs its code. Later errors: ``DeviceLost`` once nothing can succeed any
more, ``RuntimeFailure`` for all others.

A runtime halves its batches when memory runs out. ``batch_max`` is what one pass over the device
holds now; ``infer`` still takes every batch that the manifest allows, because a caller may have read
``batch_max`` before it was halved.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from engines.bundle.manifest import BundleError, EngineFile, InputSpec, Manifest
from engines.runtime.cuda import Cuda, CudaError, Fault
from engines.runtime.executor import EngineTensors, PlanExecutor, halved
from engines.runtime.protocol import (
    DeviceLost,
    Runtime,
    RuntimeFailure,
    check_batch,
    check_logits,
    crop_shape,
)
from engines.runtime.selection import choose_plan
from engines.runtime.tensorrt_api import (
    TENSORRT,
    TENSORRT_RTX,
    LogCapture,
    Target,
    import_api,
    make_logger,
    require_driver,
    version_of,
)

_log = structlog.get_logger(__name__)


class Executor(Protocol):
    """An engine with its buffers, for passes of a fixed largest size."""

    def run(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [N] of any number of crops; ``CudaError``."""
        ...

    def close(self) -> None:
        """Free everything on the device; never raises."""
        ...


@dataclass(frozen=True)
class EngineIdentity:
    """Name, precision and digest of a loaded engine."""

    name: str
    precision: str
    engine_sha256: str


class ElasticRuntime:
    """A ``Runtime`` on an executor; ``infer`` may be called from any thread, and runs one at a time."""

    def __init__(
        self, identity: EngineIdentity, spec: InputSpec, make: Callable[[int], Executor], most: int
    ) -> None:
        """Create the executor for ``most`` crops, or for as many as memory holds.

        Raises:
            CudaError: not even one crop fits, or the device failed.
        """
        self.name: Final = identity.name
        self.precision: Final = identity.precision
        self.engine_sha256: Final = identity.engine_sha256
        self._spec = spec
        self._make: Callable[[int], Executor] | None = make  # None: closed
        self._lock = threading.Lock()
        self._most = most
        self._executor: Executor | None = None
        self._prepared()

    @property
    def batch_max(self) -> int:
        """The largest batch for one pass over the device, as memory allows now."""
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
            # _make holds the engine, whose weights are on the device.
            self._executor = self._make = None

    def _run(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        while True:
            try:
                return self._prepared().run(image_NHWC)
            except CudaError as error:
                if not self._halve(error):
                    raise self._failure(error, len(image_NHWC)) from error

    def _prepared(self) -> Executor:
        """The executor; created, if there is none, for as many crops as memory holds."""
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
        """Prepare for half the batch; false if that does not help."""
        smaller = halved(self._most)
        if error.fault is not Fault.MEMORY or smaller is None:
            return False
        _log.warning("batch_halved", runtime=self.name, batch_max=smaller, reason=str(error))
        if self._executor is not None:
            self._executor.close()
        self._executor = None  # its memory is free before the next one allocates
        self._most = smaller
        return True

    def _failure(self, error: CudaError, count: int) -> RuntimeFailure:
        if error.fault is Fault.LOST:
            return DeviceLost(f"{self.name} lost its device ({error}): restart the process")
        return RuntimeFailure(f"{self.name} failed on {count} crops: {error}")


def open_tensorrt(manifest: Manifest, files: Mapping[str, bytes], threads: int) -> Runtime:
    """Load the plan of TensorRT that fits this machine.

    Args:
        manifest: the bundle's.
        files: verified bytes by path; the chosen plan must be among them.
        threads: ignored, as the GPU does the work.
    """
    del threads
    return _open(TENSORRT, manifest, files)


def open_tensorrt_rtx(manifest: Manifest, files: Mapping[str, bytes], threads: int) -> Runtime:
    """Load the plan of TensorRT-RTX that fits this machine; see ``open_tensorrt``."""
    del threads
    return _open(TENSORRT_RTX, manifest, files)


def _open(target: Target, manifest: Manifest, files: Mapping[str, bytes]) -> Runtime:
    require_driver(f"the runtime {target.name}")
    api = import_api(target)
    try:
        cuda = Cuda()
        plan = choose_plan(manifest, target.name, version_of(api), cuda.compute_capability())
        if plan.path not in files:
            raise BundleError(f"the bytes of {plan.path} are missing: open the whole bundle")
        return _load(api, cuda, manifest, plan, files[plan.path])
    except CudaError as error:
        raise BundleError(
            f"the runtime {target.name} cannot use the GPU ({error}): check it with `nvidia-smi`, "
            "and free memory on it if it has none left"
        ) from error


def _load(
    api: ModuleType, cuda: Cuda, manifest: Manifest, plan: EngineFile, data: bytes
) -> Runtime:
    captured = LogCapture()
    logger = make_logger(api, captured)
    runtime: Any = api.Runtime(logger)
    _refuse_invalid(api, runtime, plan, data)
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise _damaged(api, plan, captured.summary())
    spec = manifest.input
    io = EngineTensors(spec.name, manifest.output_name, crop_shape(spec))
    _check_tensors(api, engine, manifest, plan)
    # An engine must not outlive its runtime and its logger: the closure keeps all three.
    held = (engine, runtime, logger)
    return ElasticRuntime(
        EngineIdentity(plan.runtime, plan.precision, hashlib.sha256(data).hexdigest()),
        spec,
        lambda most: PlanExecutor(api, cuda, held[0], io, most, captured),
        spec.batch_max,
    )


def _refuse_invalid(
    api: ModuleType,
    runtime: Any,  # noqa: ANN401  an untyped library
    plan: EngineFile,
    data: bytes,
) -> None:
    """Check the plan's header, if the library has a call for that (TensorRT-RTX)."""
    if len(data) < getattr(runtime, "engine_header_size", 1):
        raise _damaged(api, plan, f"it has {len(data)} bytes")
    ask = getattr(runtime, "get_engine_validity", None)
    if ask is None:
        return
    validity, diagnostics = ask(data)
    if validity == api.EngineValidity.INVALID:
        raise BundleError(
            f"{plan.path} does not run here ({_names(api.EngineInvalidityDiagnostics, diagnostics)})"
            ": compile the bundle again on this machine"
        )


def _damaged(api: ModuleType, plan: EngineFile, why: str) -> BundleError:
    return BundleError(
        f"{plan.path} cannot be loaded by {plan.runtime} {version_of(api)} ({why}): it is truncated "
        "or damaged; compile the bundle again"
    )


def _names(kinds: Any, bits: int) -> str:  # noqa: ANN401  an untyped library
    members: dict[str, Any] = kinds.__members__
    named = [name.lower() for name, value in members.items() if int(value) & int(bits)]
    return ", ".join(named) or "no reason given"


def _check_tensors(
    api: ModuleType,
    engine: Any,  # noqa: ANN401  an untyped library
    manifest: Manifest,
    plan: EngineFile,
) -> None:
    """Refuse a plan whose tensors or batches differ from the manifest's."""
    spec, shape = manifest.input, crop_shape(manifest.input)
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    actual = {
        name: (engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name))[1:])
        for name in names
    }
    expected = {
        spec.name: (api.DataType.UINT8, shape),
        manifest.output_name: (api.DataType.FLOAT, ()),
    }
    if actual != expected:
        raise BundleError(
            f"{plan.path} has the tensors {actual}, the manifest says {expected}: compile the "
            "bundle again"
        )
    least, _, most = engine.get_tensor_profile_shape(spec.name, 0)
    if least[0] > spec.batch_min or most[0] < spec.batch_max:
        raise BundleError(
            f"{plan.path} takes {least[0]} to {most[0]} crops, the manifest says {spec.batch_min} "
            f"to {spec.batch_max}: compile the bundle again"
        )
