"""A worker loads what a worker needs, and no framework for training or for GPUs."""

import subprocess
import sys

FORBIDDEN = (
    "torch", "timm", "diffusers", "onnx", "openvino", "tensorrt", "tensorrt_rtx", "sklearn",
    "trainer", "deploy",
)  # fmt: skip


def test_a_worker_imports_no_training_framework() -> None:
    """Whatever is installed beside it: memory, start-up time and attack surface depend on it."""
    program = "import sys, worker.app, worker.cli; print('\\n'.join(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    modules = {name.partition(".")[0] for name in found.stdout.split()}
    assert modules & {*FORBIDDEN} == set()
    assert {"worker", "engines", "kafka", "redis"} <= modules


def test_the_command_line_loads_only_what_a_command_needs() -> None:
    """``--help`` and ``check-config`` answer at once: no engine, no client of Kafka or Redis."""
    program = (
        "import sys, worker.cli; status = worker.cli.main(['check-config'], {});"
        "print(*sys.modules, sep='\\n', file=sys.stderr); sys.exit(status)"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    modules = {name.partition(".")[0] for name in process.stderr.split()}
    assert modules & {"kafka", "numpy", "redis", *FORBIDDEN} == set()
