"""Every plan against the trainer's golden outputs, within the tolerance of its precision."""

from collections.abc import Callable

import numpy as np
import pytest

from engines.bundle.golden import check_golden, read_golden
from engines.bundle.manifest import Precision
from engines.runtime.protocol import Runtime
from tests.gpu.conftest import PRECISIONS, OnGpu


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_plan_gives_the_golden_logits(
    on_gpu: OnGpu, opened: Callable[[Precision], Runtime], precision: Precision
) -> None:
    runtime = opened(precision)
    assert (runtime.name, runtime.precision) == (on_gpu.target.name, precision)
    golden = read_golden(on_gpu.files[on_gpu.manifest.golden_file])
    difference = check_golden(runtime, on_gpu.manifest, golden)
    assert difference <= on_gpu.manifest.tolerances[precision]
    if precision != "fp32":
        assert difference > 1e-6  # it is not the fp32 plan under another name


@pytest.mark.parametrize("count", [1, 3, 17, 32])
def test_a_crop_s_logit_does_not_depend_on_its_batch(
    on_gpu: OnGpu, opened: Callable[[Precision], Runtime], count: int
) -> None:
    runtime = opened("fp32")
    golden_NHWC = read_golden(on_gpu.files[on_gpu.manifest.golden_file]).image_NHWC
    image_NHWC = np.resize(golden_NHWC, (count, *golden_NHWC.shape[1:]))
    alone_N = np.concatenate([runtime.infer(image_NHWC[i : i + 1]) for i in range(count)])
    np.testing.assert_allclose(runtime.infer(image_NHWC), alone_N, atol=1e-3)
