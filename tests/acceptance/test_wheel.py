"""The wheel, installed outside a checkout: what a user has who builds and installs it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from engines import __version__
from tests.support.events import picture

ROOT = Path(__file__).resolve().parents[2]
WORKER_SIZE_MAX_BYTES = 20_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    subprocess.run([*command, folder], cwd=ROOT, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds this wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    install = ["pip", "install", "--quiet", "--offline", "--no-deps", "--python"]
    subprocess.run([uv, *install, folder / "venv", wheel], check=True)
    return folder / "venv" / "bin"


def run(program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run an installed program; the dependencies come from here, the project from the wheel.

    The checkout is on this environment's path by a .pth file, which PYTHONPATH does not read.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SYNTHGATE_")}
    return subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env=kept | {"PYTHONPATH": sysconfig.get_path("purelib")},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_the_wheel_holds_the_packages_and_no_demo(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert packages == {"worker", "trainer", "engines", "deploy"}
    assert [name for name in names if name.startswith("deploy/")] == [
        "deploy/__init__.py",
        "deploy/command.py",
    ]
    assert {"worker/py.typed", "trainer/py.typed", "engines/py.typed"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.stat().st_size < WORKER_SIZE_MAX_BYTES


def test_an_installed_worker_scores_a_picture(installed: Path, tmp_path: Path) -> None:
    """With the reference bundle out of the wheel, in a directory that holds no checkout."""
    (tmp_path / "photo.png").write_bytes(picture(1, side_px=128))
    where = run(
        installed / "python", "-c", "import worker; print(worker.__file__)", cwd=tmp_path
    ).stdout
    assert where.startswith(str(installed.parent))

    version = run(installed / "synthgate", "--version", cwd=tmp_path)
    assert version.stdout.strip() == __version__
    scored = run(installed / "synthgate", "worker", "score", "photo.png", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert '"score"' in scored.stdout


def test_an_installed_trainer_and_engines_answer(installed: Path, tmp_path: Path) -> None:
    for group, command in (("engines", "verify"), ("trainer", "train"), ("worker", "run")):
        helped = run(installed / "synthgate", group, "--help", cwd=tmp_path)
        assert helped.returncode == 0, helped.stderr
        assert f"usage: synthgate {group}" in helped.stdout
        assert command in helped.stdout
        assert max(map(len, helped.stdout.splitlines())) <= 80
