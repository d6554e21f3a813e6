"""Memory that runs out on a real device: half the batch, the same logits."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from engines.bundle.golden import check_golden, read_golden
from engines.runtime.cuda import Cuda, CudaError
from tests.gpu.conftest import OnGpu

_LEAST_CHUNK_BYTES = 2 << 20


@contextmanager
def memory_taken(cuda: Cuda, leave_bytes: int) -> Iterator[None]:
    """Take the device's memory but for so much."""
    taken: list[int] = []
    chunk_bytes = 1 << 30
    while chunk_bytes >= _LEAST_CHUNK_BYTES:
        if cuda.free_memory_bytes() - chunk_bytes < leave_bytes:
            chunk_bytes //= 2
            continue
        try:
            taken.append(cuda.malloc(chunk_bytes))
        except CudaError:
            chunk_bytes //= 2
    try:
        yield
    finally:
        for address in taken:
            cuda.free(address)


def needed_bytes(on_gpu: OnGpu, cuda: Cuda) -> int:
    """What a runtime takes of the device's memory; opened twice, as the first loads the library."""
    manifest = on_gpu.with_precision("fp32")
    on_gpu.open(manifest).close()
    before = cuda.free_memory_bytes()
    runtime = on_gpu.open(manifest)
    after = cuda.free_memory_bytes()
    runtime.close()
    return before - after


def test_too_little_memory_halves_the_batch_and_says_so(on_gpu: OnGpu) -> None:
    cuda = Cuda()
    manifest = on_gpu.with_precision("fp32")
    with memory_taken(cuda, int(0.6 * needed_bytes(on_gpu, cuda))), capture_logs() as logs:
        runtime = on_gpu.open(manifest)
        assert 1 <= runtime.batch_max < manifest.input.batch_max
        assert [one["event"] for one in logs if one["log_level"] == "warning"].count("batch_halved")
        golden = read_golden(on_gpu.files[manifest.golden_file])
        assert check_golden(runtime, manifest, golden) <= manifest.tolerances["fp32"]
        runtime.close()


def test_a_closed_runtime_has_given_its_memory_back(on_gpu: OnGpu) -> None:
    cuda = Cuda()
    manifest = on_gpu.with_precision("fp32")
    on_gpu.open(manifest).close()
    before = cuda.free_memory_bytes()
    for _ in range(3):
        on_gpu.open(manifest).close()
    assert cuda.free_memory_bytes() == pytest.approx(before, abs=32 << 20)
