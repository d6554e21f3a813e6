"""What a CUDA error means, and what a machine without a GPU answers."""

import sys

import pytest

from engines.bundle.manifest import BundleError
from engines.runtime.cuda import Cuda, CudaError, Fault, fault_of


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (2, Fault.MEMORY),
        (214, Fault.LOST),  # ECC, uncorrectable
        (700, Fault.LOST),  # illegal address
        (719, Fault.LOST),  # launch failure
        (1, Fault.OTHER),  # invalid value
        (35, Fault.OTHER),  # driver too old, or none
        (901, Fault.OTHER),  # capture invalidated
    ],
)
def test_an_error_says_what_it_means_for_the_process(code: int, fault: Fault) -> None:
    assert fault_of(code) is fault


def test_a_call_that_fails_says_which_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    # No machine has this many devices; one without a driver has none at all.
    with pytest.raises(CudaError, match=r"cudaSetDevice: .* \(CUDA error \d+\)"):
        Cuda(device=4096)


def test_missing_bindings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(BundleError, match="pip install cuda-bindings"):
        Cuda()
