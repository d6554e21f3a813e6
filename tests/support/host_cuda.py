"""A device in host memory that is as lazy as a device may be: for the bookkeeping around one.

Streams do nothing before somebody waits for them, so a buffer that is written too early, or read too
soon, shows as a wrong number. What it cannot show, kernels and drivers, ``make test-gpu`` shows.
"""

import ctypes
import itertools
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from engines.runtime.cuda import CudaError, Fault

Work = Callable[[], None]
API = SimpleNamespace(ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="own"))


class HostCuda:
    """The calls of ``engines.runtime.cuda.Cuda`` that an executor makes."""

    def __init__(self, memory_bytes: int = 1 << 30) -> None:
        self.memory_bytes = memory_bytes
        self.held: dict[int, object] = {}
        self.launched = 0
        self.fails: dict[str, list[CudaError]] = {}
        self._device_bytes: dict[int, int] = {}
        self._handles = itertools.count(1)
        self._queues: dict[int, deque[Work]] = {}
        self._capturing: dict[int, list[Work]] = {}
        self._come: dict[int, tuple[int, threading.Event]] = {}

    def use(self) -> None:
        """There is one."""

    def malloc(self, size_bytes: int) -> int:
        """Device memory, of which there is only so much."""
        self._maybe_fail("malloc")
        if sum(self._device_bytes.values()) + size_bytes > self.memory_bytes:
            raise CudaError("cudaMalloc: out of memory", Fault.MEMORY)
        address = self.malloc_host(size_bytes)
        self._device_bytes[address] = size_bytes
        return address

    def malloc_host(self, size_bytes: int) -> int:
        """Pinned memory."""
        buffer = (ctypes.c_uint8 * size_bytes)()
        address = ctypes.addressof(buffer)
        self.held[address] = buffer
        return address

    def free(self, address: int) -> None:
        """Give it back; twice is an error."""
        del self._device_bytes[address]
        self.free_host(address)

    def free_host(self, address: int) -> None:
        """Give it back; twice is an error, and so is work under way, which may still use it."""
        assert not any(self._queues.values())
        del self.held[address]

    def make_stream(self) -> int:
        """A queue of work."""
        stream = self._new("stream")
        self._queues[stream] = deque()
        return stream

    def make_event(self) -> int:
        """Something to wait for."""
        return self._new("event")

    def destroy_stream(self, handle: int) -> None:
        """Give it back; twice is an error."""
        del self.held[handle]

    destroy_event = destroy_graph = destroy_stream

    def synchronize(self, stream: int) -> None:
        """Do all that the stream was given."""
        self._maybe_fail("synchronize")
        while self._queues[stream]:
            self._queues[stream].popleft()()

    def record(self, event: int, stream: int) -> None:
        """The event comes when the stream gets here."""
        come = threading.Event()
        self._come[event] = stream, come
        self.give(stream, come.set)

    def stream_waits(self, stream: int, event: int) -> None:
        """What follows waits for the event as it is recorded now."""
        recorded = self._come[event]
        self.give(stream, lambda: self._drain(*recorded))

    def wait(self, event: int) -> None:
        """Work until the event has come."""
        self._maybe_fail("wait")
        self._drain(*self._come[event])

    def upload(self, device: int, host: int, size_bytes: int, stream: int) -> None:
        """Copy, when its turn comes."""
        self.give(stream, partial(_copy, device, host, size_bytes))

    def download(self, host: int, device: int, size_bytes: int, stream: int) -> None:
        """Copy, when its turn comes."""
        self.upload(host, device, size_bytes, stream)

    def begin_capture(self, stream: int) -> None:
        """Record instead of queueing."""
        self._capturing[stream] = []

    def end_capture(self, stream: int) -> int:
        """What was recorded."""
        recorded = self._capturing.pop(stream)
        self._maybe_fail("end_capture")
        return self._new(recorded)

    def launch(self, graph: int, stream: int) -> None:
        """Queue what was recorded."""
        self._maybe_fail("launch")
        self.launched += 1
        recorded = self.held[graph]
        assert isinstance(recorded, list)
        for work in recorded:
            self.give(stream, work)

    def give(self, stream: int, work: Work) -> None:
        """Queue work, or record it."""
        self._capturing.get(stream, self._queues[stream]).append(work)

    def _drain(self, stream: int, come: threading.Event) -> None:
        while not come.is_set():
            self._queues[stream].popleft()()

    def _new(self, what: object) -> int:
        handle = next(self._handles)
        self.held[handle] = what
        return handle

    def _maybe_fail(self, call: str) -> None:
        if self.fails.get(call):
            raise self.fails[call].pop(0)


class HostEngine:
    """An engine whose logit is the mean of a crop's pixels."""

    def __init__(self, cuda: HostCuda) -> None:
        self.cuda = cuda
        self.refuses = 0  # the next executions that say no, as the library does
        self.batches: list[int] = []

    def create_execution_context(self, strategy: object) -> "HostContext":
        """A context that is given its scratch memory."""
        assert strategy == "own"
        return HostContext(self)


class HostContext:
    """Shapes and addresses; bound to them once it was recorded."""

    def __init__(self, engine: HostEngine) -> None:
        self._engine = engine
        self._shape: tuple[int, ...] = ()
        self._at: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """The batch."""
        assert name == "image"
        self._shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Where a tensor lies."""
        self._at[name] = address
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        """Scratch memory grows with the batch."""
        return 1000 * self._shape[0]

    def set_device_memory(self, address: int, size_bytes: int) -> None:
        """Take the scratch memory."""
        assert size_bytes >= self.update_device_memory_size_for_shapes()
        self._scratch = address, size_bytes

    def execute_async_v3(self, stream: int) -> bool:
        """Queue the computation."""
        assert self._scratch is not None
        if self._engine.refuses:
            self._engine.refuses -= 1
            return False
        self._engine.cuda.give(stream, self._compute)
        return True

    def _compute(self) -> None:
        self._engine.batches.append(self._shape[0])
        height_px, width_px, channels = self._shape[1:]
        size_bytes = self._shape[0] * height_px * width_px * channels
        image_NHWC = _bytes_at(self._at["image"], size_bytes).reshape(self._shape)
        logit_N = _bytes_at(self._at["logit"], 4 * self._shape[0]).view(np.float32)
        logit_N[:] = image_NHWC.astype(np.float32).mean(axis=(1, 2, 3))


def _copy(to: int, what: int, size_bytes: int) -> None:
    ctypes.memmove(to, what, size_bytes)


def _bytes_at(address: int, size_bytes: int) -> NDArray[np.uint8]:
    raw = (ctypes.c_uint8 * size_bytes).from_address(address)
    view: NDArray[np.uint8] = np.ctypeslib.as_array(raw)
    return view
