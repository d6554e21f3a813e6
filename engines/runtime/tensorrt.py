"""TensorRT and TensorRT-RTX on an NVIDIA GPU: plans that were compiled for it.

In: a manifest and the verified bytes of its files. Out: a ``Runtime``.
Errors: ``BundleError`` where there is no driver, no library, no plan for this GPU and release, or a
plan that cannot be loaded; each says what to do. As far as can be told from the manifest and from
the plan's first bytes, it is told before the plan is deserialised, which is running code.
"""

import hashlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from engines.cuda import Cuda, CudaError
from engines.manifest import BundleError, EngineFile, Manifest
from engines.runtime.batch import crop_shape
from engines.runtime.elastic import ElasticRuntime, Identity
from engines.runtime.executor import Io, PlanExecutor
from engines.runtime.plans import choose_plan
from engines.runtime.protocol import Runtime
from engines.tensorrt_api import (
    TENSORRT,
    TENSORRT_RTX,
    Said,
    Target,
    import_api,
    make_logger,
    require_driver,
    version_of,
)


def open_tensorrt(manifest: Manifest, files: Mapping[str, bytes], threads: int) -> Runtime:
    """Load the plan of TensorRT that fits this machine.

    Args:
        manifest: the bundle's.
        files: verified bytes by bundle path; the plan that is chosen must be among them.
        threads: without meaning here, the GPU does the work.
    """
    del threads
    return _open(TENSORRT, manifest, files)


def open_tensorrt_rtx(manifest: Manifest, files: Mapping[str, bytes], threads: int) -> Runtime:
    """The same, of TensorRT-RTX."""
    del threads
    return _open(TENSORRT_RTX, manifest, files)


def _open(target: Target, manifest: Manifest, files: Mapping[str, bytes]) -> Runtime:
    require_driver(f"the runtime {target.name}")
    api = import_api(target)
    try:
        cuda = Cuda()
        plan = choose_plan(manifest, target.name, version_of(api), cuda.compute_capability())
        if plan.path not in files:
            raise BundleError(f"the bytes of {plan.path} were not given: open the whole bundle")
        return _load(api, cuda, manifest, plan, files[plan.path])
    except CudaError as error:
        raise BundleError(
            f"the runtime {target.name} cannot use the GPU ({error}): check it with `nvidia-smi`, "
            "and free memory on it if it has none left"
        ) from error


def _load(
    api: ModuleType, cuda: Cuda, manifest: Manifest, plan: EngineFile, data: bytes
) -> Runtime:
    said = Said()
    logger = make_logger(api, said)
    runtime: Any = api.Runtime(logger)
    _refuse_invalid(api, runtime, plan, data)
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise _damaged(api, plan, said.in_words())
    spec = manifest.input
    io = Io(spec.name, manifest.output_name, crop_shape(spec))
    _check_tensors(api, engine, manifest, plan)
    # An engine must not outlive its runtime and its logger, and all three end with the closure.
    held = (engine, runtime, logger)
    return ElasticRuntime(
        Identity(plan.runtime, plan.precision, hashlib.sha256(data).hexdigest()),
        spec,
        lambda most: PlanExecutor(api, cuda, held[0], io, most, said),
        spec.batch_max,
    )


def _refuse_invalid(
    api: ModuleType,
    runtime: Any,  # noqa: ANN401  an untyped library
    plan: EngineFile,
    data: bytes,
) -> None:
    """Ask the library about the plan's header, where it has a call for that (TensorRT-RTX)."""
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
    named = [name.lower() for name, one in members.items() if int(one) & int(bits)]
    return ", ".join(named) or "no reason given"


def _check_tensors(
    api: ModuleType,
    engine: Any,  # noqa: ANN401  an untyped library
    manifest: Manifest,
    plan: EngineFile,
) -> None:
    """Refuses a plan whose tensors or batches are not those of the manifest."""
    spec, shape = manifest.input, crop_shape(manifest.input)
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {
        name: (engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name))[1:])
        for name in names
    }
    expected = {
        spec.name: (api.DataType.UINT8, shape),
        manifest.output_name: (api.DataType.FLOAT, ()),
    }
    if found != expected:
        raise BundleError(
            f"{plan.path} has the tensors {found}, the manifest says {expected}: compile the "
            "bundle again"
        )
    least, _, most = engine.get_tensor_profile_shape(spec.name, 0)
    if least[0] > spec.batch_min or most[0] < spec.batch_max:
        raise BundleError(
            f"{plan.path} takes {least[0]} to {most[0]} crops, the manifest says {spec.batch_min} "
            f"to {spec.batch_max}: compile the bundle again"
        )
