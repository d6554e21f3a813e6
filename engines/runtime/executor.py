"""A deserialised engine with its buffers, streams and recorded graphs: created once, then only used.

In: crops on the host. Out: their logits. Errors: ``CudaError``.

Two lanes of pinned and device buffers take turns: while one piece of a batch is computed, the next
is written into the other lane and copied. All computing is on one stream, so all contexts share one
scratch memory. Each bucket size has a context for each lane, because a recorded CUDA graph is bound
to the shapes and addresses of its context.
"""

import ctypes
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from engines.runtime.cuda import Cuda, CudaError, Fault
from engines.runtime.tensorrt_api import LogCapture

# A batch of this size runs as two halves: the second is copied while the first is computed.
_WORTH_HALVING: Final = 16


def buckets(most: int) -> tuple[int, ...]:
    """The prepared batch sizes: powers of two, and ``most`` itself, ascending.

    Every other batch is filled up to the next size, at most to twice its crops.
    """
    if most < 1:
        raise ValueError(f"a batch holds at least 1 crop, not {most}")
    powers = [1 << exponent for exponent in range(most.bit_length()) if 1 << exponent < most]
    return (*powers, most)


def bucket_for(count: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending sizes that holds ``count`` crops."""
    return next(size for size in sizes if size >= count)


def cut(count: int, most: int) -> tuple[int, ...]:
    """The sizes of the pieces that ``count`` crops run as, each at most ``most``.

    A single piece that is large enough becomes two, so that copying the second overlaps with
    computing the first.
    """
    pieces = -(-count // most)
    if pieces == 1 and count >= _WORTH_HALVING:
        pieces = 2
    size, larger = divmod(count, pieces)
    return (size + 1,) * larger + (size,) * (pieces - larger)


def halved(most: int) -> int | None:
    """The next smaller batch after memory ran out; None when even one crop is too much."""
    return most // 2 or None


_log = structlog.get_logger(__name__)
_LOGIT_BYTES: Final = 4
_LEAST_SCRATCH_BYTES: Final = 256  # an engine that needs none still gets an address


@dataclass(frozen=True)
class EngineTensors:
    """The engine's two tensors.

    Attributes:
        input_name: uint8 [N, H, W, 3].
        output_name: float32 [N].
        crop_shape: (H, W, 3).
    """

    input_name: str
    output_name: str
    crop_shape: tuple[int, int, int]

    @property
    def crop_bytes(self) -> int:
        """The size of one crop."""
        height_px, width_px, channels = self.crop_shape
        return height_px * width_px * channels


@dataclass(frozen=True)
class _Lane:
    """Buffers for the largest piece, and the events that order the work on them."""

    host_image: NDArray[np.uint8]
    host_logit: NDArray[np.float32]
    host_image_at: int
    host_logit_at: int
    device_image_at: int
    device_logit_at: int
    uploaded: int
    done: int


@dataclass(frozen=True)
class _Step:
    """A bucket on a lane: its context and its recorded graph (0 if it cannot be recorded)."""

    context: Any
    graph: int


class PlanExecutor:
    """Runs pieces of at most ``most`` crops, from one thread at a time."""

    def __init__(
        self,
        api: ModuleType,
        cuda: Cuda,
        engine: object,
        io: EngineTensors,
        most: int,
        captured: LogCapture,
    ) -> None:
        """Allocate, warm up and record everything; ``CudaError`` leaves nothing behind."""
        self._api, self._cuda, self._engine, self._io = api, cuda, engine, io
        self._most, self._captured = most, captured
        self._sizes = buckets(most)
        self._held = ExitStack()
        self._streams: list[int] = []
        try:
            self._cuda.use()
            self._copying, self._computing = self._make_stream(), self._make_stream()
            self._lanes = (self._make_lane(), self._make_lane())
            self._steps = self._make_steps()
        except BaseException:
            self.close()
            raise

    def run(self, image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits, float32 [N], of uint8 crops [N, H, W, 3]; any N."""
        self._cuda.use()
        logit_N = np.empty(len(image_NHWC), dtype=np.float32)
        under_way: list[tuple[int, slice]] = []
        start = 0
        for turn, size in enumerate(cut(len(image_NHWC), self._most)):
            if len(under_way) == len(self._lanes):
                self._collect(*under_way.pop(0), logit_N)
            place = slice(start, start + size)
            self._send(turn % len(self._lanes), image_NHWC[place])
            under_way.append((turn % len(self._lanes), place))
            start += size
        for lane, place in under_way:
            self._collect(lane, place, logit_N)
        return logit_N

    def close(self) -> None:
        """Wait for running work and free everything; errors of a lost device are ignored."""
        for stream in self._streams:
            _quietly(self._cuda.synchronize, stream)
        self._streams, self._steps = [], {}
        self._held.close()

    def _send(self, index: int, image_NHWC: NDArray[np.uint8]) -> None:
        cuda, lane, count = self._cuda, self._lanes[index], len(image_NHWC)
        lane.host_image[:count] = image_NHWC  # pinned: the copy below returns at once
        size_bytes = count * self._io.crop_bytes
        cuda.upload(lane.device_image_at, lane.host_image_at, size_bytes, self._copying)
        cuda.record(lane.uploaded, self._copying)
        cuda.stream_waits(self._computing, lane.uploaded)
        # The rest of the bucket holds an earlier piece, whose logits are not read.
        step = self._steps[bucket_for(count, self._sizes), index]
        if step.graph:
            cuda.launch(step.graph, self._computing)
        else:
            self._execute(step.context)
        size_bytes = count * _LOGIT_BYTES
        cuda.download(lane.host_logit_at, lane.device_logit_at, size_bytes, self._computing)
        cuda.record(lane.done, self._computing)

    def _collect(self, index: int, place: slice, logit_N: NDArray[np.float32]) -> None:
        lane = self._lanes[index]
        self._cuda.wait(lane.done)
        logit_N[place] = lane.host_logit[: place.stop - place.start]

    def _make_stream(self) -> int:
        stream = self._hold(self._cuda.make_stream(), self._cuda.destroy_stream)
        self._streams.append(stream)
        return stream

    def _make_lane(self) -> _Lane:
        cuda, most, io = self._cuda, self._most, self._io
        image_bytes, logit_bytes = most * io.crop_bytes, most * _LOGIT_BYTES
        host_image_at = self._hold(cuda.malloc_host(image_bytes), cuda.free_host)
        host_logit_at = self._hold(cuda.malloc_host(logit_bytes), cuda.free_host)
        return _Lane(
            host_image=_bytes_at(host_image_at, image_bytes).reshape(most, *io.crop_shape),
            host_logit=_bytes_at(host_logit_at, logit_bytes).view(np.float32),
            host_image_at=host_image_at,
            host_logit_at=host_logit_at,
            device_image_at=self._hold(cuda.malloc(image_bytes), cuda.free),
            device_logit_at=self._hold(cuda.malloc(logit_bytes), cuda.free),
            uploaded=self._hold(cuda.make_event(), cuda.destroy_event),
            done=self._hold(cuda.make_event(), cuda.destroy_event),
        )

    def _make_steps(self) -> dict[tuple[int, int], _Step]:
        places = [(size, lane) for size in self._sizes for lane in range(len(self._lanes))]
        contexts = {place: self._make_context(*place) for place in places}
        needed = [context.update_device_memory_size_for_shapes() for context in contexts.values()]
        scratch_bytes = max(_LEAST_SCRATCH_BYTES, *needed)
        scratch_at = self._hold(self._cuda.malloc(scratch_bytes), self._cuda.free)
        for context in contexts.values():
            context.set_device_memory(scratch_at, scratch_bytes)
        steps = {
            place: _Step(context, self._record(context)) for place, context in contexts.items()
        }
        if not all(step.graph for step in steps.values()):
            _log.warning("cuda_graphs_unused", reason="the engine cannot be captured in a stream")
        return steps

    def _make_context(self, size: int, lane: int) -> Any:  # noqa: ANN401  an untyped library
        context = new_context(self._api, self._engine)
        if context is None:
            raise self._refusal("create_execution_context")
        io, buffers = self._io, self._lanes[lane]
        for done in (
            context.set_input_shape(io.input_name, (size, *io.crop_shape)),
            context.set_tensor_address(io.input_name, buffers.device_image_at),
            context.set_tensor_address(io.output_name, buffers.device_logit_at),
        ):
            if not done:
                raise self._refusal("the execution context's shapes and addresses")
        return context

    def _record(self, context: Any) -> int:  # noqa: ANN401  an untyped library
        """Run once to settle the shapes, then record; 0 if that is not possible."""
        cuda, stream = self._cuda, self._computing
        self._execute(context)
        cuda.synchronize(stream)
        capturable = getattr(context, "is_stream_capturable", None)  # TensorRT-RTX only
        if capturable is not None and not capturable(stream):
            return 0
        cuda.begin_capture(stream)
        recorded = context.execute_async_v3(stream)
        try:  # always: the stream would otherwise stay in capture
            graph = self._hold(cuda.end_capture(stream), cuda.destroy_graph)
        except CudaError as error:
            if error.fault is not Fault.OTHER:
                raise
            return 0
        return graph if recorded else 0

    def _execute(self, context: Any) -> None:  # noqa: ANN401  an untyped library
        if not context.execute_async_v3(self._computing):
            raise self._refusal("execute_async_v3")

    def _refusal(self, call: str) -> CudaError:
        """The error for a call that returned false: the library logs its reason."""
        self._cuda.synchronize(self._computing)  # raises if the device is lost
        reasons = self._captured.summary()
        fault = Fault.MEMORY if is_out_of_memory(self._captured.errors) else Fault.OTHER
        self._captured.errors.clear()
        return CudaError(f"{call} failed: {reasons}", fault)

    def _hold(self, handle: int, give_back: Callable[[int], None]) -> int:
        self._held.callback(_quietly, give_back, handle)
        return handle


def new_context(api: ModuleType, engine: Any) -> Any:  # noqa: ANN401  an untyped library
    """A context without scratch memory of its own; None if the library refuses."""
    own_memory = api.ExecutionContextAllocationStrategy.USER_MANAGED
    specialise = getattr(api, "DynamicShapesKernelSpecializationStrategy", None)
    if specialise is None:
        return engine.create_execution_context(own_memory)
    # TensorRT-RTX compiles kernels when a shape first occurs, by default in the background. A graph
    # recorded before that would keep the slower kernels.
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(own_memory)
    config.dynamic_shapes_kernel_specialization_strategy = specialise.EAGER
    return engine.create_execution_context(config)


def is_out_of_memory(errors: list[str]) -> bool:
    """Whether the library's errors are about memory."""
    words = " ".join(errors).lower()
    return "out of memory" in words or "outofmemory" in words


def _bytes_at(address: int, size_bytes: int) -> NDArray[np.uint8]:
    raw = (ctypes.c_uint8 * size_bytes).from_address(address)
    view: NDArray[np.uint8] = np.ctypeslib.as_array(raw)
    return view


def _quietly(call: Callable[[int], None], handle: int) -> None:
    try:
        call(handle)
    except CudaError as error:
        _log.debug("cuda_cleanup_failed", reason=str(error))
