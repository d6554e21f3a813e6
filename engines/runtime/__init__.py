"""The runtimes that can run a bundle, and how the best one is opened.

In: runtime and device from the settings, a manifest, the verified bytes of its files. Out: a
``Runtime``, and a log line that says which was chosen and why the others were not. Errors:
``BundleError``.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Final

import structlog

from engines.bundle.manifest import BundleError, Manifest
from engines.runtime.machine import Machine, this_machine
from engines.runtime.protocol import Graph, Runtime, RuntimeFailure
from engines.runtime.selection import (
    AUTO,
    Candidate,
    Device,
    SkippedRuntime,
    no_runtime_error,
    select_runtimes,
)

__all__ = [
    "AUTO",
    "Device",
    "Runtime",
    "RuntimeFailure",
    "open_candidate",
    "open_runtime",
]

Files = Mapping[str, bytes]
_OpenPlan = Callable[[Manifest, Files, int], Runtime]


def open_runtime(
    name: str,
    manifest: Manifest,
    files: Files,
    threads: int,
    *,
    device: Device = "auto",
    machine: Machine | None = None,
) -> Runtime:
    """Load verified bytes into the best runtime that this machine has.

    Args:
        name: a runtime's name, or "auto": the first of the manifest's that can run here.
        manifest: the bundle's manifest.
        files: verified bytes by path: the model's, and those of ``selection.needed_paths``.
        threads: how many threads one inference may use.
        device: "gpu" or "cpu" excludes the other.
        machine: where it runs (default: this machine).

    Only opening a plan shows whether it is for another GPU or release. Then the next candidate is
    tried, which is on the CPU only if the settings do not ask for a GPU.

    Raises:
        BundleError: no such runtime, none that can run here, or a file that cannot be loaded.
    """
    selection = select_runtimes(name, manifest, machine or this_machine(), device)
    failed: list[SkippedRuntime] = []
    for candidate in selection.candidates:
        try:
            runtime = open_candidate(candidate, manifest, files, threads)
        except BundleError as error:
            if not candidate.on_gpu:
                raise
            failed.append(SkippedRuntime(candidate.label, str(error)))
            continue
        log = structlog.get_logger().bind(asked_runtime=name, asked_device=device)
        _log_choice(log, runtime, candidate, selection.skipped, failed)
        return runtime
    raise no_runtime_error(name, device, [*selection.skipped, *failed])


def _log_choice(
    log: structlog.typing.FilteringBoundLogger,
    runtime: Runtime,
    candidate: Candidate,
    skipped: Sequence[SkippedRuntime],
    failed: Sequence[SkippedRuntime],
) -> None:
    # A GPU whose plans cannot be opened deserves a warning; a missing GPU does not.
    (log.warning if failed else log.info)(
        "runtime_chosen",
        runtime=runtime.name,
        precision=runtime.precision,
        files=list(candidate.paths),
        skipped=[str(runtime) for runtime in (*skipped, *failed)],
    )


def open_candidate(candidate: Candidate, manifest: Manifest, files: Files, threads: int) -> Runtime:
    """Open a candidate and nothing else; raises ``BundleError``."""
    return _OPENERS[candidate.runtime](candidate, manifest, files, threads)


# Each opener imports its runtime: a process that only reads manifests needs none, and most machines
# do not have all of them.


def _onnxruntime_cpu(
    candidate: Candidate, manifest: Manifest, files: Files, threads: int
) -> Runtime:
    from engines.runtime.onnxruntime import OnnxRuntimeCpu  # noqa: PLC0415

    return OnnxRuntimeCpu(manifest, _graph(candidate, files), threads=threads)


def _openvino_cpu(candidate: Candidate, manifest: Manifest, files: Files, threads: int) -> Runtime:
    from engines.runtime.openvino import OpenVinoCpu  # noqa: PLC0415

    return OpenVinoCpu(manifest, _graph(candidate, files), threads=threads)


def _tensorrt(candidate: Candidate, manifest: Manifest, files: Files, threads: int) -> Runtime:
    """TensorRT and TensorRT-RTX have an opener each, which sees only its own plans."""
    try:
        module = import_module("engines.runtime.tensorrt")
        open_plan: _OpenPlan = getattr(module, f"open_{candidate.runtime.replace('-', '_')}")
    except (ImportError, AttributeError) as error:
        raise BundleError(
            f"{candidate.runtime} cannot be loaded ({error}): install its packages, or name "
            "another runtime"
        ) from error
    own = manifest.model_copy(
        update={
            "runtimes": (candidate.runtime,),
            "engines": tuple(
                engine for engine in manifest.engines if engine.path in candidate.paths
            ),
        }
    )
    plans = {path: files[path] for path in candidate.paths}
    return open_plan(own, plans, threads)


def _graph(candidate: Candidate, files: Files) -> Graph:
    (path,) = candidate.paths
    if candidate.precision is None:
        raise BundleError(f"{candidate.label} has no precision: export the bundle again")
    return Graph(path, candidate.precision, files[path])


_OPENERS: Final[Mapping[str, Callable[[Candidate, Manifest, Files, int], Runtime]]] = (
    MappingProxyType(
        {
            "onnxruntime-cpu": _onnxruntime_cpu,
            "openvino-cpu": _openvino_cpu,
            "tensorrt": _tensorrt,
            "tensorrt-rtx": _tensorrt,
        }
    )
)
