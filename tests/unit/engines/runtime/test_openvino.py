"""OpenVINO: the precision that is asked for is computed in, or the bundle is refused."""

import numpy as np
import pytest

from engines.bundle.manifest import BundleError, PreprocessSpec
from engines.runtime.machine import this_machine
from engines.runtime.openvino import OpenVinoCpu
from engines.runtime.protocol import Graph
from tests.support.bundles import reference_logit_N, tiny_manifest, tiny_model
from tests.support.images import noise_HWC

MANIFEST = tiny_manifest(PreprocessSpec(version="1", crop_policy="center", crop_px=32))
MODEL = tiny_model(32).SerializeToString()


def test_bf16_is_bf16_or_refused() -> None:
    """Where the processor lacks it, OpenVINO computes in fp32 and says nothing: we do."""
    graph = Graph("model.onnx", "bf16", MODEL)
    if this_machine().processor & {"avx512_bf16", "amx_bf16"}:
        runtime = OpenVinoCpu(MANIFEST, graph, threads=1)
        image_NHWC = noise_HWC(32, 32, 1)[None]
        difference = np.abs(runtime.infer(image_NHWC) - reference_logit_N(image_NHWC)).max()
        assert runtime.precision == "bf16"
        assert 1e-6 < difference < 0.1
    else:
        with pytest.raises(BundleError, match=r"does not compute model\.onnx in bf16"):
            OpenVinoCpu(MANIFEST, graph, threads=1)


def test_fp32_is_fp32_whatever_the_processor_has() -> None:
    runtime = OpenVinoCpu(MANIFEST, Graph("model.onnx", "fp32", MODEL), threads=1)
    image_NHWC = noise_HWC(32, 32, 2)[None]
    np.testing.assert_allclose(runtime.infer(image_NHWC), reference_logit_N(image_NHWC), atol=1e-5)


def test_a_precision_that_it_has_not_is_refused() -> None:
    with pytest.raises(BundleError, match=r"fp32, bf16, int8, not in fp8 \(model\.onnx\)"):
        OpenVinoCpu(MANIFEST, Graph("model.onnx", "fp8", MODEL), threads=1)
