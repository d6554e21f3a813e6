"""Images a second by batch and precision, from host memory to logits; writes a page for the docs."""

import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from engines.bundle.manifest import Precision
from engines.runtime.executor import buckets
from engines.runtime.protocol import Runtime
from engines.runtime.tensorrt_api import import_api, version_of
from tests.gpu.conftest import PRECISIONS, ROOT, OnGpu

_WARM_UP_S, _MEASURED_S = 0.5, 2.0


def images_per_s(runtime: Runtime, batch: int, side_px: int) -> float:
    """One caller, one batch after the other."""
    random = np.random.default_rng(batch)
    image_NHWC = random.integers(0, 256, (batch, side_px, side_px, 3), dtype=np.uint8)
    end_s = time.perf_counter() + _WARM_UP_S
    while time.perf_counter() < end_s:
        runtime.infer(image_NHWC)
    done, began_s = 0, time.perf_counter()
    while time.perf_counter() < began_s + _MEASURED_S:
        runtime.infer(image_NHWC)
        done += batch
    return done / (time.perf_counter() - began_s)


def page(on_gpu: OnGpu, rates: dict[Precision, dict[int, float]]) -> str:
    """The Markdown of one library's figures, with where they come from."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    batches = buckets(on_gpu.manifest.input.batch_max)
    spec = on_gpu.manifest.input
    rows = [
        f"| {precision} | " + " | ".join(f"{found[batch]:,.0f}" for batch in batches) + " |"
        for precision, found in rates.items()
    ]
    return "\n".join(
        [
            f"# {on_gpu.target.name} {version_of(import_api(on_gpu.target))}: images a second",
            "",
            (
                f"{on_gpu.manifest.name} {on_gpu.manifest.version}, {spec.height_px} x {spec.width_px} px, "
                "from uint8 crops in host memory to logits, one caller."
            ),
            "",
            "| batch | " + " | ".join(map(str, batches)) + " |",
            "|---|" + "---:|" * len(batches),
            *rows,
            "",
            (
                f"(`make test-gpu` at commit {commit} on {torch.cuda.get_device_name()}, "
                f"{datetime.now(UTC):%Y-%m-%d}.)"
            ),
            "",
        ]
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_throughput_grows_with_the_batch_and_is_written_down(
    on_gpu: OnGpu, opened: Callable[[Precision], Runtime]
) -> None:
    batches = buckets(on_gpu.manifest.input.batch_max)
    side_px = on_gpu.manifest.input.height_px
    rates: dict[Precision, dict[int, float]] = {}
    for precision in PRECISIONS:
        runtime = opened(precision)
        rates[precision] = {batch: images_per_s(runtime, batch, side_px) for batch in batches}
    folder = ROOT / "build" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"gpu-{on_gpu.target.name}.md").write_text(page(on_gpu, rates), encoding="utf-8")
    for precision, found in rates.items():
        assert found[batches[-1]] > found[1], precision
