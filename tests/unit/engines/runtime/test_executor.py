"""The bookkeeping around a device: lanes, buckets, recorded graphs, memory that runs out."""

import gc
import weakref
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from engines.bundle.manifest import InputSpec
from engines.runtime.cuda import Cuda, CudaError, Fault
from engines.runtime.executor import EngineTensors, PlanExecutor
from engines.runtime.protocol import DeviceLost, RuntimeFailure
from engines.runtime.tensorrt import ElasticRuntime, EngineIdentity
from engines.runtime.tensorrt_api import LogCapture
from tests.support.host_cuda import API, HostCuda, HostEngine

IO = EngineTensors("image", "logit", (4, 4, 3))
SPEC = InputSpec(
    height_px=4, width_px=4, batch_opt=8, batch_max=64, mean=(0.5,) * 3, std=(0.5,) * 3
)


def executor(
    cuda: HostCuda, engine: HostEngine, most: int, captured: LogCapture | None = None
) -> PlanExecutor:
    """An executor on that device."""
    return PlanExecutor(API, cast("Cuda", cuda), engine, IO, most, captured or LogCapture())  # type: ignore[arg-type]


def crops(count: int) -> NDArray[np.uint8]:
    """Crops that all differ in their mean."""
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


def means(image_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the engine computes."""
    mean_N: NDArray[np.float32] = image_NHWC.astype(np.float32).mean(axis=(1, 2, 3))
    return mean_N


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 31, 33, 64, 65, 200, 257])
def test_every_crop_gets_its_own_logit(count: int) -> None:
    cuda = HostCuda()
    image_NHWC = crops(count)
    logit_N = executor(cuda, HostEngine(cuda), 32).run(image_NHWC)
    np.testing.assert_array_equal(logit_N, means(image_NHWC))


def test_batches_run_as_recorded_graphs_of_the_next_bucket() -> None:
    cuda = HostCuda()
    engine = HostEngine(cuda)
    ready = executor(cuda, engine, 8)
    assert engine.batches == [1, 1, 2, 2, 4, 4, 8, 8]  # each warmed up on both lanes, nothing else
    engine.batches.clear()
    ready.run(crops(3))
    ready.run(crops(19))
    assert engine.batches == [4, 8, 8, 8]
    assert cuda.launched == 4


def test_an_engine_that_cannot_be_recorded_runs_all_the_same_and_it_is_said() -> None:
    cuda = HostCuda()
    cuda.fails["end_capture"] = [CudaError("capture invalidated", Fault.OTHER)] * 2
    with capture_logs() as logs:
        ready = executor(cuda, HostEngine(cuda), 1)
    image_NHWC = crops(5)
    np.testing.assert_array_equal(ready.run(image_NHWC), means(image_NHWC))
    assert cuda.launched == 0
    assert [one["event"] for one in logs] == ["cuda_graphs_unused"]


def test_closing_gives_everything_back() -> None:
    cuda = HostCuda()
    ready = executor(cuda, HostEngine(cuda), 8)
    assert cuda.held
    ready.close()
    assert cuda.held == {}


def test_an_executor_that_cannot_be_made_leaves_nothing_behind() -> None:
    cuda = HostCuda(memory_bytes=500)
    with pytest.raises(CudaError) as caught:
        executor(cuda, HostEngine(cuda), 8)
    assert caught.value.fault is Fault.MEMORY
    assert cuda.held == {}


def test_a_failure_in_the_middle_does_not_reach_the_next_batch() -> None:
    cuda = HostCuda()
    ready = executor(cuda, HostEngine(cuda), 8)
    cuda.fails["wait"] = [CudaError("a kernel was refused", Fault.OTHER)]
    with pytest.raises(CudaError, match="refused"):
        ready.run(crops(30))
    image_NHWC = crops(31)
    np.testing.assert_array_equal(ready.run(image_NHWC), means(image_NHWC))


@pytest.mark.parametrize(
    ("complaint", "fault"),
    [
        ("Error Code 1: Cuda Runtime (out of memory)", Fault.MEMORY),
        ("Error Code 2: OutOfMemory (Requested size was 1 bytes)", Fault.MEMORY),
        ("Error Code 3: API Usage Error", Fault.OTHER),
    ],
)
def test_a_refusal_of_the_library_is_told_by_what_it_said(complaint: str, fault: Fault) -> None:
    cuda = HostCuda()
    engine, captured = HostEngine(cuda), LogCapture()
    cuda.fails["end_capture"] = [CudaError("no capture", Fault.OTHER)] * 2
    ready = executor(cuda, engine, 1, captured)
    engine.refuses = 1
    captured.errors.append(complaint)
    with pytest.raises(CudaError) as caught:
        ready.run(crops(1))
    assert caught.value.fault is fault
    assert complaint in str(caught.value)


def elastic(cuda: HostCuda, most: int = 64) -> ElasticRuntime:
    """A runtime on that device."""
    engine = HostEngine(cuda)
    identity = EngineIdentity("tensorrt", "fp16", "0" * 64)
    return ElasticRuntime(identity, SPEC, lambda size: executor(cuda, engine, size), most)


def test_memory_that_never_sufficed_halves_the_batch_at_opening() -> None:
    # 64 crops need 64 x (1000 of scratch + 2 x (48 + 4)) bytes: half of that fits.
    with capture_logs() as logs:
        runtime = elastic(HostCuda(memory_bytes=40_000))
    assert runtime.batch_max == 32
    assert [(one["event"], one["batch_max"]) for one in logs] == [("batch_halved", 32)]
    image_NHWC = crops(64)  # what the manifest allows is taken all the same
    np.testing.assert_array_equal(runtime.infer(image_NHWC), means(image_NHWC))


def test_memory_that_runs_out_later_halves_the_batch_and_loses_no_crop() -> None:
    cuda = HostCuda()
    runtime = elastic(cuda)
    cuda.memory_bytes = 20_000  # another process took the rest
    cuda.fails["launch"] = [CudaError("cudaGraphLaunch: out of memory", Fault.MEMORY)]
    image_NHWC = crops(50)
    with capture_logs() as logs:
        np.testing.assert_array_equal(runtime.infer(image_NHWC), means(image_NHWC))
    assert runtime.batch_max == 16
    assert [one["batch_max"] for one in logs] == [32, 16]
    runtime.close()
    assert cuda.held == {}


def test_memory_that_is_all_taken_is_a_failure_until_some_is_free_again() -> None:
    cuda = HostCuda()
    runtime = elastic(cuda, most=4)
    cuda.memory_bytes = 10
    cuda.fails["launch"] = [CudaError("cudaGraphLaunch: out of memory", Fault.MEMORY)]
    with pytest.raises(RuntimeFailure, match="out of memory"):
        runtime.infer(crops(4))
    cuda.memory_bytes = 1 << 20
    image_NHWC = crops(4)
    np.testing.assert_array_equal(runtime.infer(image_NHWC), means(image_NHWC))
    assert runtime.batch_max == 1


def test_one_crop_that_does_not_fit_is_a_failure_and_no_endless_loop() -> None:
    cuda = HostCuda()
    runtime = elastic(cuda, most=1)
    cuda.fails["launch"] = [CudaError("out of memory", Fault.MEMORY)]
    with pytest.raises(RuntimeFailure, match="failed on 1 crops: out of memory"):
        runtime.infer(crops(1))


def test_a_lost_device_is_an_error_of_its_own() -> None:
    cuda = HostCuda()
    runtime = elastic(cuda)
    cuda.fails["launch"] = [CudaError("illegal address (CUDA error 700)", Fault.LOST)]
    with pytest.raises(DeviceLost, match="restart the process"):
        runtime.infer(crops(1))


def test_any_other_failure_is_of_that_batch_alone() -> None:
    cuda = HostCuda()
    runtime = elastic(cuda)
    cuda.fails["launch"] = [CudaError("invalid value", Fault.OTHER)]
    with pytest.raises(RuntimeFailure) as caught:
        runtime.infer(crops(4))
    assert not isinstance(caught.value, DeviceLost)
    assert runtime.batch_max == 64
    assert len(runtime.infer(crops(4))) == 4


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((65, 4, 4, 3), np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.float32),
    ],
)
def test_what_is_no_batch_of_crops_is_the_callers_error(batch: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="crops"):
        elastic(HostCuda()).infer(batch)


def test_a_closed_runtime_lets_go_of_the_engine_and_its_weights() -> None:
    cuda = HostCuda()
    engine = HostEngine(cuda)
    gone = weakref.ref(engine)

    def make(most: int, engine: HostEngine = engine) -> PlanExecutor:
        return executor(cuda, engine, most)

    runtime = ElasticRuntime(EngineIdentity("tensorrt", "fp16", "0" * 64), SPEC, make, 4)
    del engine, make
    assert gone() is not None
    runtime.close()
    gc.collect()
    assert gone() is None


def test_a_closed_runtime_says_so() -> None:
    runtime = elastic(HostCuda())
    runtime.close()
    with pytest.raises(RuntimeFailure, match="was closed"):
        runtime.infer(crops(1))
