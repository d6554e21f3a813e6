"""Opening a plan where it cannot run; what a GPU adds is in tests/gpu."""

from collections.abc import Callable

import pytest

from engines import tensorrt_api
from engines.manifest import BundleError, PreprocessSpec
from engines.runtime.tensorrt import open_tensorrt, open_tensorrt_rtx
from tests.support.bundles import tiny_manifest

MANIFEST = tiny_manifest(PreprocessSpec(version="1", crop_policy="center", crop_px=32))


@pytest.mark.parametrize(
    ("opener", "name"), [(open_tensorrt, "tensorrt"), (open_tensorrt_rtx, "tensorrt-rtx")]
)
def test_without_a_driver_it_is_refused_before_the_library_could_crash(
    opener: Callable[..., object], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_api, "_DRIVER", "libcuda-that-nobody-has.so.1")
    with pytest.raises(BundleError, match=f"the runtime {name} needs an NVIDIA GPU"):
        opener(MANIFEST, {}, 1)
