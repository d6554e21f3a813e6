"""A worker loads what a worker needs, and no framework for training or for GPUs."""

import subprocess
import sys

FORBIDDEN = (
    "torch", "timm", "diffusers", "onnx", "openvino", "tensorrt", "tensorrt_rtx", "sklearn",
    "trainer", "deploy",
)  # fmt: skip


def test_a_worker_imports_no_training_framework() -> None:
    """Whatever is installed beside it: memory, start-up time and attack surface depend on it."""
    program = "import sys, worker.__main__; print('\\n'.join(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    modules = {name.partition(".")[0] for name in found.stdout.split()}
    assert modules & {*FORBIDDEN} == set()
    assert {"worker", "engines", "kafka", "redis"} <= modules
