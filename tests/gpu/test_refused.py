"""Plans that must not be loaded, and a device that is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from engines.bundle.manifest import BundleError, EngineFile, Manifest
from tests.gpu.conftest import OnGpu

LOSE_THE_DEVICE = Path(__file__).parent / "lose_the_device.py"


def changed(manifest: Manifest, **update: object) -> Manifest:
    """The manifest, its plans saying something else of themselves."""
    plans: list[EngineFile] = [one.model_copy(update=update) for one in manifest.engines]
    return manifest.model_copy(update={"engines": tuple(plans)})


def test_a_plan_for_another_gpu_is_refused(on_gpu: OnGpu) -> None:
    other = changed(on_gpu.manifest, compute_capability="7.0", hardware_compatible=False)
    with pytest.raises(BundleError, match=r"compute capability 7\.0; this one has"):
        on_gpu.open(other)


def test_a_plan_of_another_release_is_refused(on_gpu: OnGpu) -> None:
    with pytest.raises(BundleError, match=r"0\.0\.1, and plans run on no other release"):
        on_gpu.open(changed(on_gpu.manifest, runtime_version="0.0.1"))


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_plan_is_refused(on_gpu: OnGpu, kept: float) -> None:
    manifest = on_gpu.with_precision("fp32")
    (plan,) = manifest.engines
    data = on_gpu.files[plan.path]
    damaged = {**on_gpu.files, plan.path: data[: int(len(data) * kept)]}
    with pytest.raises(BundleError, match="compile the bundle again"):
        on_gpu.open(manifest, damaged)


def test_a_lost_device_is_an_error_of_its_own(on_gpu: OnGpu) -> None:
    # In a process of its own: nothing on the GPU works after it.
    done = subprocess.run(
        [sys.executable, LOSE_THE_DEVICE, on_gpu.directory, on_gpu.target.name],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "DeviceLost:" in done.stdout, done.stderr
