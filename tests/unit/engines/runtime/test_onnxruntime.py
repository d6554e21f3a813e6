"""ONNX Runtime: an int8 graph gives the same logits on every processor."""

import numpy as np
import pytest

from engines.bundle.manifest import PreprocessSpec
from engines.compile.int8 import int8_graph
from engines.runtime.machine import INT8_FEATURES
from engines.runtime.onnxruntime import OnnxRuntimeCpu, must_widen
from engines.runtime.protocol import Graph
from tests.support.bundles import reference_logit_N, tiny_manifest, tiny_model

MANIFEST = tiny_manifest(PreprocessSpec(version="1", crop_policy="center", crop_px=32))


def test_int8_does_not_overflow() -> None:
    """White gives the largest products, 255 x (127 + 32): two of them do not fit in 16 bits."""
    black_NHWC, white_NHWC = (np.full((1, 32, 32, 3), level, np.uint8) for level in (0, 255))
    model = tiny_model(32).SerializeToString()
    data = int8_graph(model, "image_NHWC", [black_NHWC[0], white_NHWC[0]])
    runtime = OnnxRuntimeCpu(MANIFEST, Graph("model.int8.onnx", "int8", data), threads=1)
    assert runtime.precision == "int8"
    for image_NHWC in (black_NHWC, white_NHWC):
        difference_N = np.abs(runtime.infer(image_NHWC) - reference_logit_N(image_NHWC))
        assert difference_N.max() < 0.1


@pytest.mark.parametrize("feature", sorted(INT8_FEATURES))
def test_the_slow_exact_sums_are_for_processors_that_lack_fast_ones(feature: str) -> None:
    assert must_widen(frozenset({"avx2"}))
    assert not must_widen(frozenset({"avx2", feature}))
