"""The CUDA calls that plans need, on ``cuda-bindings``: memory, streams, events, graphs.

In and out: plain integers (addresses, handles). Errors: ``CudaError``, with the code of the runtime;
``fault_of`` says what a code means for whoever goes on.

Imports the bindings where the first call is made: only machines with a GPU need to have them.
"""

import importlib
from enum import Enum
from types import ModuleType
from typing import Any, Final

from engines.bundle.manifest import BundleError

# From CUDA's own list (cudaError_t): after one of these, no call of this process succeeds again.
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
    """Work on the device failed; ``fault`` says what that means for the process."""

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


class Cuda:
    """The runtime API of one device; every method may raise ``CudaError``."""

    def __init__(self, device: int = 0) -> None:
        """Takes the device for the calling thread; ``BundleError`` without the bindings."""
        self._api = _bindings()
        self._device = device
        self.use()

    def use(self) -> None:
        """Make the device the calling thread's: CUDA keeps one a thread."""
        self._call("cudaSetDevice", self._device)

    def compute_capability(self) -> str:
        """Of the device, for instance "9.0"."""
        kinds = self._api.cudaDeviceAttr
        numbers = [
            self._call("cudaDeviceGetAttribute", kind, self._device)
            for kind in (
                kinds.cudaDevAttrComputeCapabilityMajor,
                kinds.cudaDevAttrComputeCapabilityMinor,
            )
        ]
        return ".".join(str(one) for one in numbers)

    def free_memory_bytes(self) -> int:
        """What is free on the device now."""
        free, _total = self._call("cudaMemGetInfo")
        return int(free)

    def malloc(self, size_bytes: int) -> int:
        """Device memory; its address."""
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cudaFree", address)

    def malloc_host(self, size_bytes: int) -> int:
        """Pinned host memory, which copies need to be asynchronous; its address."""
        return int(self._call("cudaHostAlloc", size_bytes, self._api.cudaHostAllocDefault))

    def free_host(self, address: int) -> None:
        """Give pinned memory back."""
        self._call("cudaFreeHost", address)

    def make_stream(self) -> int:
        """A stream that does not wait for the default one."""
        return int(self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait for all of a stream."""
        self._call("cudaStreamSynchronize", stream)

    def make_event(self) -> int:
        """An event that only orders: it keeps no time, and who waits for it sleeps."""
        flags = self._api.cudaEventDisableTiming | self._api.cudaEventBlockingSync
        return int(self._call("cudaEventCreateWithFlags", flags))

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """The event comes when the stream has done what it was given so far."""
        self._call("cudaEventRecord", event, stream)

    def stream_waits(self, stream: int, event: int) -> None:
        """What the stream is given from now on waits for the event."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def wait(self, event: int) -> None:
        """The calling thread waits for the event."""
        self._call("cudaEventSynchronize", event)

    def upload(self, device: int, host: int, size_bytes: int, stream: int) -> None:
        """Host to device, in the stream."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", device, host, size_bytes, kind, stream)

    def download(self, host: int, device: int, size_bytes: int, stream: int) -> None:
        """Device to host, in the stream."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host, device, size_bytes, kind, stream)

    def begin_capture(self, stream: int) -> None:
        """From now on the stream records what this thread gives it, and does nothing."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """What was recorded, ready to launch; its handle."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Give the stream a recorded graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Give a recorded graph back."""
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
