"""What this machine offers to runtimes: packages, processor features, an NVIDIA GPU.

In: nothing. Out: a ``Machine``, plain values. Errors: none; what cannot be detected counts as absent.

Detection imports no runtime. It calls the driver directly, because TensorRT's ``Runtime()`` ends the
process if there is no driver.
"""

import ctypes
import platform
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

PACKAGES: Final = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx")

# Linux's names of the features that OpenVINO needs for bf16.
BF16_FEATURES: Final = frozenset({"avx512_bf16", "amx_bf16"})
# And of those that add int8 products in 32 bits. Without them ONNX Runtime gives the same logits more
# slowly; OpenVINO lets 16 bits overflow and gives wrong ones (docs/adr/0012).
INT8_FEATURES: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})

_CPUINFO: Final = Path("/proc/cpuinfo")
_DRIVER: Final = "libcuda.so.1"
_CUDA_SUCCESS: Final = 0
# CUdevice_attribute, from cuda.h: the major and minor compute capability.
_CAPABILITY_MAJOR: Final = 75
_CAPABILITY_MINOR: Final = 76


@dataclass(frozen=True)
class Machine:
    """What a machine can run.

    Attributes:
        packages: those of ``PACKAGES`` that can be imported.
        processor: the processor's features by Linux's names (``avx2``, ``avx512_bf16``); empty on
            other systems.
        gpu: the compute capability of the first NVIDIA GPU, "9.0"; None without a working driver.
    """

    packages: frozenset[str]
    processor: frozenset[str]
    gpu: str | None


def this_machine() -> Machine:
    """The machine that this process runs on."""
    packages = frozenset(name for name in PACKAGES if find_spec(name) is not None)
    return Machine(packages, processor_features(), gpu_capability(_DRIVER))


def processor_features(path: Path = _CPUINFO) -> frozenset[str]:
    """The first processor's features from a file like ``/proc/cpuinfo``; empty without that file."""
    return frozenset(_first(path, "flags", "Features").split())  # x86, Arm


def processor_name(path: Path = _CPUINFO) -> str:
    """The first processor's name from that file, or else the architecture."""
    return _first(path, "model name") or platform.machine()


def _first(path: Path, *keys: str) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return ""


def gpu_capability(library: str) -> str | None:
    """The compute capability of GPU 0, from the driver library; None if either is missing."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    steps: tuple[tuple[str, tuple[object, ...]], ...] = (
        ("cuInit", (0,)),
        ("cuDeviceGet", (ctypes.byref(device), 0)),
        ("cuDeviceGetAttribute", (ctypes.byref(major), _CAPABILITY_MAJOR, device)),
        ("cuDeviceGetAttribute", (ctypes.byref(minor), _CAPABILITY_MINOR, device)),
    )
    for name, arguments in steps:
        call = getattr(driver, name, None)  # None: a library of that name without CUDA
        if call is None or call(*arguments) != _CUDA_SUCCESS:
            return None
    return f"{major.value}.{minor.value}"
