"""``python -m engines compile``: from a bundle to a bundle with plans, run for real."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from engines.bundle.manifest import manifest_sha256, read_manifest, write_manifest
from engines.bundle.verify import verify_files
from engines.compile import cli as compile_command
from engines.runtime.tensorrt_api import TENSORRT_RTX, import_api, version_of
from tests.support.bundles import encode, gradient_HWC, make_tiny_bundle
from tests.support.engines_cli import main
from tests.support.labelled import write_grey, write_pictures
from tests.support.signing import make_signer

REFERENCE = Path(__file__).parents[4] / "engines" / "bundles" / "reference"
VERSION = version_of(import_api(TENSORRT_RTX))
RTX = ("--target", "tensorrt-rtx", "--json")


@pytest.fixture(name="source")
def _source(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "mine")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The reason why the command refuses."""
    assert main(["compile", *map(str, arguments)]) == 1
    reason: str = json.loads(capsys.readouterr().out)["error"]
    return reason


def test_the_reference_bundle_becomes_a_bundle_with_plans_that_signs_and_verifies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    before = manifest_sha256(REFERENCE)
    arguments = ["compile", str(REFERENCE), *RTX, "--out", str(out), "--precision", "fp16", "fp32"]
    assert main(arguments) == 0
    facts = json.loads(capsys.readouterr().out)
    names = [f"plans/tensorrt-rtx-{VERSION}-sm80plus-{one}.plan" for one in ("fp16", "fp32")]
    assert [one["path"] for one in facts["plans"]] == names
    assert facts["signed"] is False
    fp16, fp32 = (one["golden_max_difference"] for one in facts["plans"])
    assert 1e-4 < fp16 < 0.05
    assert fp32 < 1e-4
    manifest = verify_files(out)
    assert [one.path for one in manifest.engines] == names
    assert manifest.runtimes[0] == "tensorrt-rtx"
    assert manifest.tolerances == {"fp16": 0.05, "fp32": 0.001}
    assert (out / names[0]).stat().st_size < 0.7 * (out / names[1]).stat().st_size
    assert manifest_sha256(REFERENCE) == before
    signer = make_signer(tmp_path)
    assert main(["sign", str(out), "--key", str(signer.private)]) == 0
    checked = ["verify", str(out), "--runtime", "onnxruntime-cpu"]
    assert main([*checked, "--trusted-keys", str(signer.public)]) == 0


def test_people_are_told_what_was_built_and_that_it_is_not_signed(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", str(source), "--target", "tensorrt-rtx"]) == 0
    printed = capsys.readouterr().out
    out = source.with_name("mine-tensorrt-rtx")
    assert "-sm80plus-fp32.plan " in printed
    assert f"{out} is not signed: `python -m engines sign {out} --key KEY`" in printed


def test_a_truncated_plan_is_refused_when_the_bundle_is_verified(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", str(source), *RTX]) == 0
    out = source.with_name("mine-tensorrt-rtx")
    plan = out / read_manifest(out).engines[0].path
    plan.write_bytes(plan.read_bytes()[:-100])
    capsys.readouterr()
    assert main(["verify", "--json", str(out)]) == 1
    assert f"{plan} has " in json.loads(capsys.readouterr().out)["error"]


def test_one_architecture_and_a_version_can_be_named(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--compute-capability", "8.9", "--version", "0.1.0+sm89")
    assert main(["compile", str(source), *RTX, *asked]) == 0
    manifest = verify_files(source.with_name("mine-tensorrt-rtx"))
    (engine,) = manifest.engines
    assert (engine.compute_capability, engine.hardware_compatible) == ("8.9", False)
    assert "-sm89-" in engine.path
    assert manifest.version == "0.1.0+sm89"


def test_int8_is_measured_on_the_images_that_are_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(32):
        (images / f"{index}.png").write_bytes(encode(gradient_HWC(32 + index, 40), "PNG"))
    asked = ("--precision", "int8", "--calibration", str(images), "--tolerance", "int8=0.2")
    assert main(["compile", str(source), *RTX, *asked]) == 0
    (plan,) = json.loads(capsys.readouterr().out)["plans"]
    assert 0 < plan["golden_max_difference"] <= 0.2
    assert read_manifest(source.with_name("mine-tensorrt-rtx")).tolerances["int8"] == 0.2


def test_a_precision_that_ruins_the_model_is_refused_before_a_plan_is_built(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = refused(capsys, source, *RTX, "--precision", "fp16", "--tolerance", "fp16=1e-7")
    assert re.search(r"in fp16 is not what was evaluated: .* over the tolerance 1e-07", reason)
    assert not source.with_name("mine-tensorrt-rtx").exists()


def test_what_a_precision_costs_is_measured_on_pictures_that_calibration_did_not_see(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's own precision costs nothing, and is not run twice."""
    pictures = write_pictures(tmp_path / "pictures")
    images = write_pictures(tmp_path / "images", side_px=60)
    write_grey(images / "more", 30)
    asked = ["--precision", "int8", "fp16", "fp32", "--tolerance", "int8=1", "--calibration"]
    judged = ["--evaluation", str(pictures)]
    assert main(["compile", str(source), *RTX, *asked, str(images), *judged]) == 0
    plans = json.loads(capsys.readouterr().out)["plans"]
    assert [one["auc_difference"] for one in plans] == [0.0, 0.0, None]
    lineage = read_manifest(source.with_name("mine-tensorrt-rtx")).lineage
    assert lineage.config["int8.auc_difference.tensorrt-rtx"] == 0.0
    assert "fp32.auc_difference.tensorrt-rtx" not in lineage.config


def test_a_precision_that_costs_too_much_is_refused_even_within_its_tolerance(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calibrated on one grey, it sees no colour."""
    grey = write_grey(tmp_path / "grey", 40)
    pictures = write_pictures(tmp_path / "pictures")
    asked = ("--precision", "int8", "--tolerance", "int8=100", "--calibration", grey)
    reason = refused(capsys, source, *RTX, *asked, "--evaluation", pictures)
    assert "the model in int8 has an AUC of" in reason
    assert "loses more than 0.0050" in reason
    assert not source.with_name("mine-tensorrt-rtx").exists()
    allowed = ("--evaluation", str(pictures), "--auc-loss-max", "1")
    assert main(["compile", str(source), *RTX, *map(str, asked), *allowed]) == 0
    (plan,) = json.loads(capsys.readouterr().out)["plans"]
    assert plan["auc_difference"] < -0.005


def test_pictures_that_calibrate_judge_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same folder for both: none is left."""
    pictures = write_pictures(tmp_path / "pictures")
    write_grey(pictures / "real" / "grey", 20)
    asked = ("--precision", "int8", "--tolerance", "int8=1", "--calibration", pictures)
    reason = refused(capsys, source, *RTX, *asked, "--evaluation", pictures)
    assert "all real or all fake evaluation pictures also calibrate int8" in reason


def test_an_evaluation_folder_of_another_layout_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = write_grey(tmp_path / "grey")
    reason = refused(capsys, source, *RTX, "--precision", "fp16", "--evaluation", grey)
    assert "needs folders real/NAME and fake/NAME" in reason


def test_an_altered_bundle_is_not_compiled(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "MODEL_CARD.md").write_text("# Better than it is\n")
    assert "MODEL_CARD.md" in refused(capsys, source, *RTX)


def test_an_output_that_is_there_already_is_refused(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "already exists" in refused(capsys, source, *RTX, "--out", source)


def test_a_gpu_that_the_library_does_not_build_for_is_refused_before_anything_is_done(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--precision", "int8", "--compute-capability", "9.0")  # and no images for int8
    assert "does not build for the compute capability 9.0" in refused(capsys, source, *RTX, *asked)


def test_one_architecture_and_all_of_them_at_once_is_refused(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--compute-capability", "8.9", "--hardware-compatible")
    assert "choose one of them" in refused(capsys, source, *RTX, *asked)


def test_a_precision_without_a_tolerance_is_refused(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "add --tolerance fp8=X" in refused(capsys, source, *RTX, "--precision", "fp8")


def test_a_model_that_the_library_cannot_read_leaves_nothing_behind(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(source)
    write_manifest(source, manifest.model_copy(update={"output_name": "another"}))
    assert "another" in refused(capsys, source, *RTX)
    assert [one.name for one in source.parent.iterdir()] == ["mine"]


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_a_library_that_measures_leaves_its_timing_cache_beside_the_bundle(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = replace(TENSORRT_RTX, times_tactics=True)
    monkeypatch.setattr(compile_command, "TARGETS", MappingProxyType({"tensorrt-rtx": timed}))
    assert main(["compile", str(source), *RTX]) == 0
    cache = source.parent / f"mine.tensorrt-rtx-{VERSION}-sm80.timing"
    assert cache.stat().st_size > 0
    verify_files(source)  # it is no file of either bundle
    verify_files(source.with_name("mine-tensorrt-rtx"))


@pytest.mark.parametrize("text", ["fp16", "fp16=", "fp16=-1", "fp99=1", "fp16=inf"])
def test_a_tolerance_that_is_none_is_a_wrong_command_line(text: str, source: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compile", str(source), *RTX, "--tolerance", text])
    assert ended.value.code == 2
