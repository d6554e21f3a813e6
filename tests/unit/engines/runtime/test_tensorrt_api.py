"""The two libraries: how they are found, and what is captured where one is not."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from engines.bundle.manifest import BundleError
from engines.runtime import tensorrt_api
from engines.runtime.tensorrt_api import (
    TENSORRT,
    TENSORRT_RTX,
    LogCapture,
    import_api,
    make_logger,
    require_driver,
    version_of,
)


def test_a_library_that_is_not_installed_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BundleError, match="pip install tensorrt-cu13"):
        import_api(TENSORRT)


def test_a_library_of_before_strongly_typed_networks_is_refused() -> None:
    with pytest.raises(BundleError, match="is too old: plans need 99 or later"):
        import_api(replace(TENSORRT_RTX, least_major=99))


def test_a_machine_without_a_driver_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_api, "_DRIVER", "libcuda-that-nobody-has.so.1")
    with pytest.raises(BundleError, match="the runtime tensorrt needs an NVIDIA GPU"):
        require_driver("the runtime tensorrt")


def test_what_the_library_complains_of_is_kept_and_its_warnings_are_logged() -> None:
    api, captured = import_api(TENSORRT_RTX), LogCapture()
    logger = make_logger(api, captured)
    complaints = [f"wrong {number}" for number in range(6)]
    with capture_logs() as logs:
        logger.log(api.ILogger.WARNING, "slow \n")  # type: ignore[attr-defined]  # of the library
        logger.log(api.ILogger.INFO, "chatter")  # type: ignore[attr-defined]
        for complaint in complaints:
            logger.log(api.ILogger.ERROR, complaint)  # type: ignore[attr-defined]
    assert [one["message"] for one in logs] == ["slow"]
    assert captured.summary() == "wrong 0; wrong 1; wrong 2; wrong 3"


def test_the_exact_release_is_known() -> None:
    assert version_of(import_api(TENSORRT_RTX)).count(".") >= 2


def test_checking_and_signing_load_neither_library_nor_onnx() -> None:
    code = (
        "import sys, engines.__main__, engines.runtime.tensorrt; "
        "print([m for m in ('tensorrt', 'tensorrt_rtx', 'onnx', 'cuda') if m in sys.modules])"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
