"""What a machine is found to have: packages, processor features, a GPU."""

import ctypes.util
from pathlib import Path

import pytest

from engines.runtime.machine import PACKAGES, gpu_capability, processor_features, this_machine


def test_this_machine_has_the_packages_of_the_tests() -> None:
    machine = this_machine()
    assert {"onnxruntime", "openvino"} <= machine.packages <= set(PACKAGES)


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\n\nprocessor : 1\nflags : fpu\n", "avx512_bf16"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16\n", "asimd"),
    ],
)  # fmt: skip
def test_the_features_are_the_first_processors(tmp_path: Path, text: str, features: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert features in processor_features(path)
    assert "processor" not in processor_features(path)


def test_where_there_is_no_such_file_no_feature_is_known(tmp_path: Path) -> None:
    assert processor_features(tmp_path / "cpuinfo") == frozenset()
    (tmp_path / "empty").write_text("")
    assert processor_features(tmp_path / "empty") == frozenset()


def test_without_the_driver_there_is_no_gpu() -> None:
    assert gpu_capability("libno-such-driver.so.1") is None


def test_a_library_that_is_no_driver_is_no_gpu() -> None:
    name = ctypes.util.find_library("c")
    assert name is not None
    assert gpu_capability(name) is None
