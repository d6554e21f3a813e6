"""Latency and throughput: what is divided by what, on a clock that the test holds."""

import itertools

import pytest

from engines.bundle.manifest import PreprocessSpec
from engines.parity.speed import batch_sizes, measure_speed
from engines.runtime.onnxruntime import OnnxRuntimeCpu
from engines.runtime.protocol import Graph
from tests.support.bundles import tiny_manifest, tiny_model

MANIFEST = tiny_manifest(PreprocessSpec(version="1", crop_policy="center", crop_px=32))


def test_the_batches_are_the_manifests_least_best_and_most() -> None:
    assert batch_sizes(MANIFEST.input, 8) == (1, 4, 8)
    assert batch_sizes(MANIFEST.input, 2) == (1, 2)


def test_latency_and_throughput_are_medians_over_repetitions() -> None:
    """The clock goes on by 10 ms whenever it is read: once before the calls, once after each."""
    runtime = OnnxRuntimeCpu(
        MANIFEST, Graph("model.onnx", "fp32", tiny_model(32).SerializeToString()), threads=1
    )
    ticks = itertools.count()
    found = measure_speed(
        runtime, MANIFEST.input, lambda: next(ticks) / 100, repetitions=3, repetition_s=0.05
    )
    assert [(one.batch, one.repetitions) for one in found] == [(1, 3), (4, 3), (8, 3)]
    for one in found:
        assert one.latency_ms.median == pytest.approx(10)
        assert one.images_per_s.median == pytest.approx(one.batch / 0.01)
        assert one.latency_ms.lowest <= one.latency_ms.median <= one.latency_ms.highest


def test_the_spread_is_that_of_the_repetitions() -> None:
    runtime = OnnxRuntimeCpu(
        MANIFEST, Graph("model.onnx", "fp32", tiny_model(32).SerializeToString()), threads=1
    )
    # Three repetitions of three calls: 1 s, 2 s and 3 s a call.
    times = itertools.chain.from_iterable([(0, 1, 2, 3), (0, 2, 4, 6), (0, 3, 6, 9)] * 3)
    found = measure_speed(
        runtime, MANIFEST.input, lambda: float(next(times)), repetitions=3, repetition_s=1.0
    )
    assert (found[0].latency_ms.lowest, found[0].latency_ms.median) == (1000, 2000)
    assert found[0].latency_ms.highest == 3000
    assert found[0].images_per_s.highest == pytest.approx(1.0)
