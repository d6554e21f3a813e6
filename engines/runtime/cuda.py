"""The CUDA calls that plans need, on ``cuda-bindings``: memory, streams, events, graphs.

In and out: plain integers (addresses, handles). Errors: ``CudaError`` with the runtime's code;
``fault_of`` says what a code means for the process.

The bindings are imported at the first call: only machines with a GPU need them.
"""

import importlib
from enum import Enum
from types import ModuleType
from typing import Any, Final

from engines.bundle.manifest import BundleError

# From cudaError_t: after one of these, no CUDA call of this process succeeds.
_LOST: Final = frozenset(
    {
        46,  # devices unavailable
        214,  # ECC, uncorrectable
        220,  # NVLink, uncorrectable
        226,  # contained error
        700,  # illegal address
        702,  # launch timeout
        709,  # context destroyed
        710,  # device-side assertion
        714,  # hardware stack error
        715,  # illegal instruction
        716,  # misaligned address
        717,  # invalid address space
        718,  # invalid program counter
        719,  # launch failure
        721,  # tensor memory leak
        805,  # MPS connection failed
        806,  # MPS call failed
        810,  # MPS client terminated
        999,  # unknown
    }
)
_OUT_OF_MEMORY: Final = 2


class Fault(Enum):
    """What an error means for the process."""

    MEMORY = "out of memory"
    LOST = "device lost"
    OTHER = "other"


def fault_of(code: int) -> Fault:
    """What a code of ``cudaError_t`` means; pure."""
    if code == _OUT_OF_MEMORY:
        return Fault.MEMORY
    return Fault.LOST if code in _LOST else Fault.OTHER


class CudaError(Exception):
    """A CUDA call failed; ``fault`` says what that means for the process."""

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


class Cuda:
    """The runtime API of one device; every method may raise ``CudaError``."""

    def __init__(self, device: int = 0) -> None:
        """Select the device for the calling thread; ``BundleError`` without the bindings."""
        self._api = _bindings()
        self._device = device
        self.use()

    def use(self) -> None:
        """Select the device for the calling thread: CUDA keeps one for each thread."""
        self._call("cudaSetDevice", self._device)

    def compute_capability(self) -> str:
        """The device's compute capability, for instance "9.0"."""
        kinds = self._api.cudaDeviceAttr
        numbers = [
            self._call("cudaDeviceGetAttribute", kind, self._device)
            for kind in (
                kinds.cudaDevAttrComputeCapabilityMajor,
                kinds.cudaDevAttrComputeCapabilityMinor,
            )
        ]
        return ".".join(map(str, numbers))

    def free_memory_bytes(self) -> int:
        """What is free on the device now."""
        free, _total = self._call("cudaMemGetInfo")
        return int(free)

    def malloc(self, size_bytes: int) -> int:
        """Allocate device memory; returns its address."""
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        """Free device memory."""
        self._call("cudaFree", address)

    def malloc_host(self, size_bytes: int) -> int:
        """Allocate pinned host memory, which asynchronous copies need; returns its address."""
        return int(self._call("cudaHostAlloc", size_bytes, self._api.cudaHostAllocDefault))

    def free_host(self, address: int) -> None:
        """Free pinned memory."""
        self._call("cudaFreeHost", address)

    def make_stream(self) -> int:
        """Create a stream that does not wait for the default one."""
        return int(self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait for all work of a stream."""
        self._call("cudaStreamSynchronize", stream)

    def make_event(self) -> int:
        """Create an event without a time; threads that wait for it sleep."""
        flags = self._api.cudaEventDisableTiming | self._api.cudaEventBlockingSync
        return int(self._call("cudaEventCreateWithFlags", flags))

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """Record the event after the work that the stream has so far."""
        self._call("cudaEventRecord", event, stream)

    def stream_waits(self, stream: int, event: int) -> None:
        """Let later work of the stream wait for the event."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def wait(self, event: int) -> None:
        """Let the calling thread wait for the event."""
        self._call("cudaEventSynchronize", event)

    def upload(self, device: int, host: int, size_bytes: int, stream: int) -> None:
        """Copy host to device, in the stream."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", device, host, size_bytes, kind, stream)

    def download(self, host: int, device: int, size_bytes: int, stream: int) -> None:
        """Copy device to host, in the stream."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host, device, size_bytes, kind, stream)

    def begin_capture(self, stream: int) -> None:
        """From now on the stream records this thread's work instead of doing it."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """Stop recording; returns the handle of the graph, ready to launch."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Launch a recorded graph in the stream."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Destroy a recorded graph."""
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: object) -> Any:  # noqa: ANN401  as the call has it
        code, *results = getattr(self._api, name)(*arguments)
        if int(code) != 0:
            _, words = self._api.cudaGetErrorString(code)
            message = f"{name}: {words.decode()} (CUDA error {int(code)})"
            raise CudaError(message, fault_of(int(code)))
        return results[0] if len(results) == 1 else tuple(results)


def _bindings() -> ModuleType:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError) as error:
        raise BundleError(
            f"the CUDA bindings cannot be imported ({error}): install them with "
            "`pip install cuda-bindings`"
        ) from error
