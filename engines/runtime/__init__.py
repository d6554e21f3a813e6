"""The runtimes that can run a bundle's model, one file each, and how one is chosen."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from engines.manifest import BundleError, Manifest
from engines.runtime.protocol import Runtime, RuntimeFailure

__all__ = ["AUTO", "Runtime", "RuntimeFailure", "open_runtime"]

AUTO: Final = "auto"


def _onnxruntime_cpu(manifest: Manifest, model_bytes: bytes, threads: int) -> Runtime:
    # Imported where it is opened: a process that only reads manifests needs no runtime.
    from engines.runtime.onnxruntime_cpu import OnnxRuntimeCpu  # noqa: PLC0415  as said above

    return OnnxRuntimeCpu(manifest, model_bytes, threads=threads)


_OPENERS: Final[Mapping[str, Callable[[Manifest, bytes, int], Runtime]]] = MappingProxyType(
    {"onnxruntime-cpu": _onnxruntime_cpu}
)


def open_runtime(name: str, manifest: Manifest, model_bytes: bytes, threads: int) -> Runtime:
    """Load the verified bytes of a model into a runtime.

    Args:
        name: a runtime's name, or "auto": the first of the manifest's that this release has.
        manifest: the bundle's manifest.
        model_bytes: the bytes of ``manifest.model_file``, verified already.
        threads: how many threads one inference may use.

    Raises:
        BundleError: no such runtime, or the model cannot be loaded or is not as described.
    """
    known = ", ".join(_OPENERS)
    if name == AUTO:
        chosen = next((one for one in manifest.runtimes if one in _OPENERS), None)
        if chosen is None:
            asked = ", ".join(manifest.runtimes)
            raise BundleError(
                f"the bundle asks for the runtimes {asked}; this release has {known}: "
                "install the release that it was exported for"
            )
        name = chosen
    elif name not in _OPENERS:
        raise BundleError(f"no runtime is called {name!r}: choose one of {AUTO}, {known}")
    elif name not in manifest.runtimes:
        allowed = ", ".join(manifest.runtimes)
        raise BundleError(f"the bundle was not exported for {name!r}: choose one of {allowed}")
    return _OPENERS[name](manifest, model_bytes, threads)
