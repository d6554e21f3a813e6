"""The reference bundle, compiled on this machine's GPU once for each library.

A library that is not installed fails its tests: ``PYTEST_ARGS="-k tensorrt-rtx"`` runs one of the two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.bundle.manifest import Manifest, Precision
from engines.bundle.verify import verify_files
from engines.compile.build import CompileRequest, compile_bundle
from engines.runtime.protocol import Runtime
from engines.runtime.tensorrt import open_tensorrt, open_tensorrt_rtx
from engines.runtime.tensorrt_api import TENSORRT, TENSORRT_RTX, Target
from tests.gpu.watching import Nobody

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "engines" / "bundles" / "reference"
SAMPLES = ROOT / "deploy" / "embedded" / "samples"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
OPENERS = {TENSORRT.name: open_tensorrt, TENSORRT_RTX.name: open_tensorrt_rtx}


@dataclass(frozen=True)
class OnGpu:
    """A compiled bundle: its manifest and the bytes of its files."""

    target: Target
    directory: Path
    manifest: Manifest
    files: dict[str, bytes]

    def with_precision(self, precision: Precision) -> Manifest:
        """The manifest with the plans of one precision alone."""
        chosen = tuple(one for one in self.manifest.engines if one.precision == precision)
        return self.manifest.model_copy(update={"engines": chosen})

    def open(self, manifest: Manifest, files: dict[str, bytes] | None = None) -> Runtime:
        """Open what the manifest, perhaps a changed one, says."""
        return OPENERS[self.target.name](manifest, self.files if files is None else files, 1)


@pytest.fixture(scope="session", params=[TENSORRT, TENSORRT_RTX], ids=lambda one: one.name)
def target(request: pytest.FixtureRequest) -> Target:
    """Each of the two libraries."""
    chosen: Target = request.param
    return chosen


@pytest.fixture(scope="session")
def on_gpu(target: Target, tmp_path_factory: pytest.TempPathFactory) -> OnGpu:
    """The reference bundle with a plan for each precision."""
    out = tmp_path_factory.mktemp("compiled") / target.name
    request = CompileRequest(REFERENCE, out, target, PRECISIONS, calibration=SAMPLES)
    compile_bundle(request, Nobody())
    manifest = verify_files(out)
    files = {entry.path: (out / entry.path).read_bytes() for entry in manifest.files}
    return OnGpu(target, out, manifest, files)


@pytest.fixture
def opened(on_gpu: OnGpu, request: pytest.FixtureRequest) -> Callable[[Precision], Runtime]:
    """``opened("fp16")``: that plan's runtime, closed after the test."""

    def open_one(precision: Precision) -> Runtime:
        runtime = on_gpu.open(on_gpu.with_precision(precision))
        request.addfinalizer(runtime.close)
        return runtime

    return open_one
