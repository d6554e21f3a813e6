"""The timing cache that TensorRT fills on a GPU."""

from pathlib import Path

from structlog.testing import capture_logs

from engines.compile.build import CompileRequest, compile_bundle
from engines.runtime.tensorrt_api import TENSORRT
from tests.gpu.watching import Nobody
from tests.support.bundles import make_tiny_bundle


def test_the_second_build_takes_what_the_first_one_measured(tmp_path: Path) -> None:
    source = make_tiny_bundle(tmp_path / "mine")
    compile_bundle(CompileRequest(source, tmp_path / "first", TENSORRT, ("fp32",)), Nobody())
    (cache,) = tmp_path.glob("mine.tensorrt-*.timing")
    size_bytes = cache.stat().st_size
    with capture_logs() as logs:
        compile_bundle(CompileRequest(source, tmp_path / "second", TENSORRT, ("fp32",)), Nobody())
    assert "timing_cache_unused" not in {one["event"] for one in logs}
    assert cache.stat().st_size == size_bytes  # nothing was measured that was not known
