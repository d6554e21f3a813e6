"""Opening a plan where it cannot run; what a GPU adds is in tests/gpu."""

from collections.abc import Callable

import pytest

from engines.bundle.manifest import BundleError, PreprocessSpec
from engines.runtime import tensorrt_api
from engines.runtime.tensorrt import open_tensorrt, open_tensorrt_rtx
from engines.runtime.tensorrt_api import TENSORRT_RTX, import_api
from tests.support.bundles import tiny_manifest

# What the runtime asks of the library, by class; a GPU is needed to ask it.
CALLS = {
    "Runtime": ("deserialize_cuda_engine", "get_engine_validity", "engine_header_size"),
    "ICudaEngine": (
        "create_execution_context",
        "create_runtime_config",
        "get_tensor_dtype",
        "get_tensor_name",
        "get_tensor_profile_shape",
        "get_tensor_shape",
        "num_io_tensors",
    ),
    "IExecutionContext": (
        "execute_async_v3",
        "is_stream_capturable",
        "set_device_memory",
        "set_input_shape",
        "set_tensor_address",
        "update_device_memory_size_for_shapes",
    ),
    "IRuntimeConfig": (
        "dynamic_shapes_kernel_specialization_strategy",
        "set_execution_context_allocation_strategy",
    ),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
    "EngineValidity": ("INVALID",),
    "EngineInvalidityDiagnostics": ("__members__",),
    "DataType": ("UINT8", "FLOAT"),
}
MANIFEST = tiny_manifest(PreprocessSpec(version="1", crop_policy="center", crop_px=32))


@pytest.mark.parametrize("kind", CALLS)
def test_the_library_still_has_all_that_is_asked_of_it(kind: str) -> None:
    known = dir(getattr(import_api(TENSORRT_RTX), kind))
    assert [name for name in CALLS[kind] if name not in known] == []


@pytest.mark.parametrize(
    ("opener", "name"), [(open_tensorrt, "tensorrt"), (open_tensorrt_rtx, "tensorrt-rtx")]
)
def test_without_a_driver_it_is_refused_before_the_library_could_crash(
    opener: Callable[..., object], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_api, "_DRIVER", "libcuda-that-nobody-has.so.1")
    with pytest.raises(BundleError, match=f"the runtime {name} needs an NVIDIA GPU"):
        opener(MANIFEST, {}, 1)
