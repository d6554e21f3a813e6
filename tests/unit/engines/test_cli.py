"""The command line: what it prints, and its exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engines.bundle.manifest import manifest_sha256
from tests.support.bundles import make_tiny_bundle
from tests.support.engines_cli import main


@pytest.fixture(name="bundle_dir")
def _bundle_dir(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "bundle")


def test_verify_says_what_was_verified(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(bundle_dir), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ok"] is True
    assert facts["sha256"] == manifest_sha256(bundle_dir)
    assert facts["golden_max_difference"] <= facts["tolerance"]


def test_verify_prints_a_table_for_people(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(bundle_dir)]) == 0
    printed = capsys.readouterr().out
    assert "golden outputs agree" in printed
    assert "onnxruntime-cpu" in printed


def test_one_refused_bundle_among_several_fails_the_command(
    bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = make_tiny_bundle(tmp_path / "broken")
    (broken / "MODEL_CARD.md").unlink()
    assert main(["verify", "--json", str(broken), str(bundle_dir)]) == 1
    refused, verified = map(json.loads, capsys.readouterr().out.splitlines())
    assert (refused["ok"], verified["ok"]) == (False, True)
    assert "MODEL_CARD.md is missing" in refused["error"]


def test_a_refusal_goes_to_standard_error_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "name the directory of a bundle" in captured.err


def test_an_unknown_runtime_is_refused(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(bundle_dir), "--runtime", "abacus"]) == 1
    assert "no runtime is called 'abacus'" in capsys.readouterr().err


def test_show_prints_the_manifest_without_checking_the_files(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle_dir / "model.onnx").unlink()
    assert main(["show", str(bundle_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["name"] == "tiny"
    assert main(["show", str(bundle_dir)]) == 0
    printed = capsys.readouterr().out
    assert "tiny 0.1.0" in printed
    assert "thresholds" in printed


@pytest.mark.parametrize("arguments", [[], ["verify"], ["verify", "x", "--threads", "0"], ["dig"]])
def test_a_wrong_command_line_is_told_apart(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2


def test_the_module_runs_as_a_program(bundle_dir: Path) -> None:
    command = [sys.executable, "-m", "engines", "verify", "--json"]
    sound = subprocess.run([*command, str(bundle_dir)], capture_output=True, check=True)
    assert json.loads(sound.stdout)["ok"] is True
    refused = subprocess.run([*command, "/nowhere"], capture_output=True, check=False)
    assert refused.returncode == 1


def test_reading_a_manifest_loads_no_runtime(bundle_dir: Path) -> None:
    """A process that only looks at bundles needs no onnxruntime; none ever loads torch."""
    script = (
        "import sys; from engines.bundle.manifest import read_manifest; from pathlib import Path;"
        "read_manifest(Path(sys.argv[1]));"
        "sys.exit(any(m in sys.modules for m in ('onnxruntime', 'torch', 'PIL')))"
    )
    subprocess.run([sys.executable, "-c", script, str(bundle_dir)], check=True)
