"""``quantize``: a bundle gets int8 or bf16 only if it is as good as fp32 on unseen pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from engines.bundle.golden import read_golden
from engines.bundle.manifest import BundleError, read_manifest
from engines.bundle.verify import load_bundle, read_bundle, verify_files
from engines.compile.quantize import QuantizeRequest, candidates
from engines.runtime import open_candidate
from engines.runtime.machine import BF16_FEATURES, INT8_FEATURES, Machine, this_machine
from engines.runtime.selection import Candidate
from tests.support.bundles import make_tiny_bundle, reference_logit_N, rewritten
from tests.support.engines_cli import main
from tests.support.labelled import write_grey, write_pictures
from tests.support.signing import make_signer


@pytest.fixture(name="bundle_dir")
def _bundle_dir(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "bundle")


@pytest.fixture(name="pictures")
def _pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


@pytest.fixture(name="calibration")
def _calibration(tmp_path: Path) -> Path:
    """Pictures of the same kind and other sizes: none is among the pictures to evaluate on."""
    return write_pictures(tmp_path / "calibration", side_px=44)


def quantize(bundle: Path, calibration: Path, pictures: Path, out: Path, *options: str) -> int:
    """The exit status of the command, which is to answer in JSON."""
    places = ["--calibration", calibration, "--evaluation", pictures, "--out", out]
    return main(["quantize", str(bundle), "--json", *map(str, places), *options])


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one line of JSON."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_new_bundle_has_an_int8_graph_beside_the_model(
    bundle_dir: Path, calibration: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_signer(bundle_dir.parent).sign(bundle_dir)
    out = bundle_dir.parent / "made"
    assert quantize(bundle_dir, calibration, pictures, out) == 0
    facts = said(capsys)
    manifest = verify_files(out)
    (engine,) = manifest.engines
    assert (engine.path, engine.runtime, engine.precision) == (
        "model.int8.onnx", "onnxruntime-cpu", "int8",
    )  # fmt: skip
    assert manifest.version == "0.1.0+int8"
    (made,) = facts["made"]
    assert manifest.tolerances["int8"] == pytest.approx(2 * made["golden_max_difference"])
    assert manifest.lineage.config["int8.auc_difference.onnxruntime-cpu"] == 0.0
    assert (facts["real"], facts["fake"], facts["calibration_crops"]) == (10, 10, 20)
    assert not (out / "signatures.json").exists()
    assert "AUC 1.0000, +0.0000 from fp32" in (out / "MODEL_CARD.md").read_text()
    assert (out / "model.onnx").read_bytes() == (bundle_dir / "model.onnx").read_bytes()
    assert load_bundle(out).manifest == manifest
    assert sorted(path.name for path in out.parent.iterdir() if path.name[0] == ".") == []


def test_the_graph_is_quantised_and_near_the_model(
    bundle_dir: Path, calibration: Path, pictures: Path
) -> None:
    out = bundle_dir.parent / "made"
    assert quantize(bundle_dir, calibration, pictures, out) == 0
    found = read_bundle(out, this_machine())
    operators = [node.op_type for node in onnx.load(out / "model.int8.onnx").graph.node]
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(operators)
    candidate = Candidate("onnxruntime-cpu", ("model.int8.onnx",), "int8", on_gpu=False)
    runtime = open_candidate(candidate, found.manifest, found.files, 1)
    golden = read_golden(found.golden_bytes)
    difference_K = np.abs(runtime.infer(golden.image_NHWC) - reference_logit_N(golden.image_NHWC))
    assert 1e-5 < difference_K.max() < 0.2


def test_int8_that_costs_too_much_is_refused_and_nothing_is_left(
    bundle_dir: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calibrated on one grey, it sees no colour."""
    grey = write_grey(bundle_dir.parent / "grey")
    before = sorted(bundle_dir.parent.rglob("*"))
    assert quantize(bundle_dir, grey, pictures, bundle_dir.parent / "made") == 1
    error = said(capsys)["error"]
    assert "it loses more than 0.0050" in error
    assert "--auc-loss-max" in error
    assert sorted(bundle_dir.parent.rglob("*")) == before


def test_a_loss_can_be_allowed_and_stands_in_the_lineage(
    bundle_dir: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = write_grey(bundle_dir.parent / "grey")
    out = bundle_dir.parent / "made"
    options = ("--auc-loss-max", "1", "--version", "0.2.0")
    assert quantize(bundle_dir, grey, pictures, out, *options) == 0
    manifest = read_manifest(out)
    assert manifest.version == "0.2.0"
    difference = manifest.lineage.config["int8.auc_difference.onnxruntime-cpu"]
    assert [difference] == [one["auc_difference"] for one in said(capsys)["made"]]
    assert isinstance(difference, float)
    assert difference < -0.005


def test_pictures_that_calibration_saw_are_not_evaluated_on(
    bundle_dir: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same folder serves both; 4 of its 20 pictures are spent."""
    out = bundle_dir.parent / "made"
    options = ("--calibration-images", "4", "--auc-loss-max", "1")
    assert quantize(bundle_dir, pictures, pictures, out, *options) == 0
    facts = said(capsys)
    assert (facts["real"], facts["fake"]) == (8, 8)


def test_openvino_gets_int8_where_the_processor_has_it(
    bundle_dir: Path, calibration: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere it would overflow, and what was measured would be another model."""
    out = bundle_dir.parent / "made"
    options = ("--runtimes", "onnxruntime-cpu", "openvino-cpu")
    status = quantize(bundle_dir, calibration, pictures, out, *options)
    if this_machine().processor & INT8_FEATURES:
        assert status == 0
        assert read_manifest(out).runtimes == ("onnxruntime-cpu", "openvino-cpu")
        runtime = load_bundle(out, runtime="openvino-cpu").runtime
        assert runtime.precision == "int8"
    else:
        assert status == 1
        assert "int8 for openvino-cpu cannot be judged here" in said(capsys)["error"]


def test_bf16_joins_without_a_file_where_the_processor_has_it(
    bundle_dir: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere nobody could say what it costs."""
    out = bundle_dir.parent / "made"
    command = ["quantize", str(bundle_dir), "--json", "--precisions", "bf16"]
    status = main([*command, "--evaluation", str(pictures), "--out", str(out)])
    if this_machine().processor & BF16_FEATURES:
        assert status == 0
        manifest = read_manifest(out)
        assert (manifest.version, manifest.engines) == ("0.1.0+bf16", ())
        assert manifest.tolerances["bf16"] >= 0.001
        assert "bf16.auc_difference.openvino-cpu" in manifest.lineage.config
        assert "- bf16 on openvino-cpu: AUC" in (out / "MODEL_CARD.md").read_text()
        assert load_bundle(out, runtime="openvino-cpu").runtime.precision == "bf16"
    else:
        assert status == 1
        assert "bf16 cannot be judged here" in said(capsys)["error"]


def asked_for_bf16() -> QuantizeRequest:
    """Of any bundle; nothing is evaluated."""
    return QuantizeRequest(("bf16",), (), (), (), 0.005)


def test_bf16_is_tried_only_where_the_processor_has_it(bundle_dir: Path) -> None:
    manifest, packages = read_manifest(bundle_dir), frozenset({"openvino"})
    having, lacking = (Machine(packages, one, None) for one in (BF16_FEATURES, frozenset[str]()))
    (candidate,) = candidates(asked_for_bf16(), manifest, having)
    assert candidate == Candidate("openvino-cpu", ("model.onnx",), "bf16", on_gpu=False)
    with pytest.raises(BundleError, match="has none of amx_bf16, avx512_bf16"):
        candidates(asked_for_bf16(), manifest, lacking)


def test_bf16_is_judged_even_where_the_exporter_measured_a_tolerance(bundle_dir: Path) -> None:
    """A retraining on such a machine would otherwise end after its training."""
    manifest = read_manifest(bundle_dir)
    has = manifest.model_copy(update={"tolerances": {**manifest.tolerances, "bf16": 0.1}})
    machine = Machine(frozenset({"openvino"}), BF16_FEATURES, None)
    assert [one.precision for one in candidates(asked_for_bf16(), has, machine)] == ["bf16"]


def test_int8_without_pictures_to_calibrate_on_names_the_option(
    bundle_dir: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(bundle_dir.parent / "made")
    command = ["quantize", str(bundle_dir), "--json", "--evaluation", str(pictures)]
    assert main([*command, "--out", out]) == 1
    assert "int8 needs --calibration" in said(capsys)["error"]


def test_a_bundle_that_is_not_fp32_is_refused(
    bundle_dir: Path, calibration: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(bundle_dir, precision="fp16", tolerances={"fp16": 1.0})
    assert quantize(bundle_dir, calibration, pictures, bundle_dir.parent / "made") == 1
    assert "the model is in fp16" in said(capsys)["error"]


def test_a_bundle_that_has_int8_already_is_refused(
    bundle_dir: Path, calibration: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = bundle_dir.parent / "first", bundle_dir.parent / "second"
    assert quantize(bundle_dir, calibration, pictures, first) == 0
    capsys.readouterr()
    assert quantize(first, calibration, pictures, second) == 1
    assert "start from the bundle that it was made of" in said(capsys)["error"]


def test_a_directory_that_holds_something_is_refused(
    bundle_dir: Path, calibration: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(bundle_dir, calibration, pictures, calibration) == 1
    assert "is not empty" in said(capsys)["error"]


def test_calibration_without_a_picture_is_refused(
    bundle_dir: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = bundle_dir.parent / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("no picture")
    assert quantize(bundle_dir, texts, pictures, bundle_dir.parent / "made") == 1
    assert "no calibration picture could be read" in said(capsys)["error"]
