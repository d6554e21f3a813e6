"""``verify --all-runtimes``: every runtime is compared, and whatever is wrong makes the status 1."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from engines.bundle.manifest import BundleError, EngineFile, Manifest, read_manifest
from engines.bundle.verify import load_bundle, read_bundle
from engines.parity.report import ReportOptions, verify_runtimes
from engines.runtime import open_runtime
from engines.runtime.machine import INT8_FEATURES, this_machine
from engines.runtime.selection import choose_plan
from tests.support.bundles import rewritten, tiny_model
from tests.support.engines_cli import main
from tests.support.images import noise_HWC
from tests.support.labelled import write_pictures
from tests.support.signing import make_signer
from tests.support.verified import QUICK, verified, with_int8

# As far from grey as the labelled pictures go.
COLOURS = [np.full((32, 32, 3), colour, np.uint8) for colour in ((180, 40, 40), (40, 40, 180))]
GREY = [noise_HWC(32, 32) // 64 + 126]


def by_precision(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The variants of ONNX Runtime; ``openvino`` is the other one."""
    return {
        "openvino" if one["runtime"] == "openvino-cpu" else one["precision"]: one
        for one in found["variants"]
    }


def test_every_runtime_and_engine_file_is_compared_and_timed(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = verified(with_int8(bundle_dir), capsys)
    variants = {(one["runtime"], one["precision"], one["path"]): one for one in found["variants"]}
    assert sorted(variants) == [
        ("onnxruntime-cpu", "fp32", "model.onnx"),
        ("onnxruntime-cpu", "int8", "model.int8.onnx"),
        ("openvino-cpu", "fp32", "model.onnx"),
    ]
    files = {entry.path: entry.sha256 for entry in read_manifest(bundle_dir).files}
    for (_, precision, path), one in variants.items():
        golden = one["golden"]
        assert one["problems"] == []
        assert one["engine_sha256"] == files[path]
        assert golden["tolerance"] == {"fp32": 1e-4, "int8": 0.5}[precision]
        assert golden["max_difference"] <= golden["tolerance"]
        assert [(c["band"], c["of"]) for c in golden["changed"]] == [("review", 7), ("block", 7)]
        assert [speed["batch"] for speed in one["speed"]] == [1, 4, 8]
        assert all(speed["latency_ms"]["median"] > 0 for speed in one["speed"])
        assert one["evaluated"] is None
    int8 = variants["onnxruntime-cpu", "int8", "model.int8.onnx"]["golden"]["max_difference"]
    assert int8 > 1e-4
    reasons = " ".join(found["passed_over"])
    assert "bf16" in reasons
    assert "tensorrt: the bundle was not exported for it" in reasons


def test_a_plan_for_another_gpu_is_not_run_and_no_problem(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle has a plan for each architecture. Only the library and the driver are left out."""
    plans = [
        EngineFile(
            path=f"sm{capability.replace('.', '')}.plan",
            runtime="tensorrt",
            precision="fp16",
            compute_capability=capability,
            runtime_version="11.4.0",
        )
        for capability in ("8.0", "9.0")
    ]
    for one in plans:
        (bundle_dir / one.path).write_bytes(b"plan")
    rewritten(bundle_dir, engines=tuple(plans), runtimes=("onnxruntime-cpu", "tensorrt"),
              tolerances={"fp32": 1e-4, "fp16": 1e-2})  # fmt: skip

    def opened(manifest: Manifest, files: Mapping[str, bytes], threads: int) -> None:
        del files, threads
        chosen = choose_plan(manifest, "tensorrt", "11.4.0", "9.0")
        raise BundleError(f"{chosen.path} is no plan")

    monkeypatch.setattr("engines.runtime.tensorrt.open_tensorrt", opened)
    packages = frozenset({"onnxruntime", "tensorrt"})
    machine = replace(this_machine(), packages=packages, gpu="9.0")
    now = datetime.now(UTC)
    report = verify_runtimes(
        read_bundle(bundle_dir, machine), machine, ReportOptions(repetitions=0), now
    )
    problems = {one.path: one.problems for one in report.variants}
    assert problems == {"model.onnx": (), "sm90.plan": ("sm90.plan is no plan",)}
    other = report.skipped[0]
    assert other.what == "tensorrt fp16 plan for sm_80 (sm80.plan)"
    assert "this one has 9.0" in other.why
    assert all(one.speed == () for one in report.variants)


def test_what_is_over_its_tolerance_is_named_and_the_others_still_measured(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = verified(with_int8(bundle_dir, tolerance=1e-6), capsys, status=1)
    assert found["ok"] is False
    variants = by_precision(found)
    int8, fp32 = variants.pop("int8"), variants.values()
    assert "over the tolerance of int8, 1e-06" in int8["problems"][0]
    assert [one["problems"] for one in fp32] == [[], []]


def test_a_file_that_no_runtime_can_load_is_a_problem_of_its_own(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_int8(bundle_dir)
    path = bundle_dir / "model.int8.onnx"
    path.write_bytes(path.read_bytes()[:-200])
    rewritten(bundle_dir)  # every digest agrees
    variants = by_precision(verified(bundle_dir, capsys, status=1))
    int8, fp32 = variants.pop("int8"), variants.values()
    assert "model.int8.onnx cannot be loaded by ONNX Runtime" in int8["problems"][0]
    assert int8["golden"] is None
    assert all(one["golden"] for one in fp32)


@pytest.mark.parametrize("damage", ["edited", "truncated"])
def test_an_engine_file_that_is_not_what_the_manifest_says_is_refused(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    with_int8(bundle_dir)
    path = bundle_dir / "model.int8.onnx"
    data = path.read_bytes()
    path.write_bytes(data[:-1] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    for command in (["verify"], ["verify", "--all-runtimes"]):
        assert main([*command, "--json", str(bundle_dir)]) == 1
        error = json.loads(capsys.readouterr().out)["error"]
        assert "model.int8.onnx" in error
        assert "copy the whole bundle again" in error


def test_an_int8_graph_is_what_a_worker_takes_where_the_processor_gains_by_it(
    bundle_dir: Path,
) -> None:
    """Without VNNI the graph gives the same logits, so the test needs no such processor."""
    machine = this_machine()
    found = read_bundle(with_int8(bundle_dir), machine)
    for features, precision in ((INT8_FEATURES, "int8"), (frozenset[str](), "fp32")):
        runtime = open_runtime(
            "auto", found.manifest, found.files, 1, machine=replace(machine, processor=features)
        )
        assert (runtime.name, runtime.precision) == ("onnxruntime-cpu", precision)


def test_each_is_evaluated_against_fp32_on_onnx_runtime(
    bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    (pictures / "real" / "blue" / "notes.txt").write_text("no picture")
    found = verified(with_int8(bundle_dir, COLOURS, 1.0), capsys, "--evaluation", str(pictures))
    assert found["pictures"] == {"real": 10, "fake": 10, "refused": 1}
    variants = by_precision(found)
    int8, fp32, openvino = (variants[one]["evaluated"] for one in ("int8", "fp32", "openvino"))
    assert fp32["auc"] == openvino["auc"] == 1.0
    assert fp32["max_difference"] == 0.0
    assert 0 < openvino["max_difference"] < 1e-3 < int8["max_difference"]
    assert [change["of"] for change in int8["changed"]] == [20, 20]


def test_int8_that_loses_auc_makes_the_status_1(
    bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calibrated on one grey, int8 sees no colour: half of the pairs are guessed."""
    with_int8(bundle_dir, GREY, tolerance=100.0)
    pictures = str(write_pictures(tmp_path / "pictures"))
    found = verified(bundle_dir, capsys, "--evaluation", pictures, status=1)
    int8 = by_precision(found)["int8"]
    assert int8["evaluated"]["auc_difference"] < -0.005
    assert "int8 loses" in int8["problems"][0]
    allowed = ("--evaluation", pictures, "--auc-loss-max", "1")
    assert verified(bundle_dir, capsys, *allowed)["ok"] is True


def test_people_get_tables(
    bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = str(write_pictures(tmp_path / "pictures"))
    command = ["verify", "--all-runtimes", *QUICK, "--evaluation", pictures, str(bundle_dir)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for said in (
        "openvino-cpu",
        "in order",
        "images/s",
        "(review,",
        "none of 7",
        "10 real, 10 fake",
    ):
        assert said in printed
    assert "not exported for it" in printed


@pytest.mark.parametrize(
    "options",
    [
        ["--report", "r.json"],
        ["--evaluation", "pictures"],
        ["--into-bundle"],
        ["--all-runtimes", "--repetitions", "0"],
        ["--all-runtimes", "--per-folder", "0"],
    ],
)
def test_options_that_do_nothing_are_a_wrong_command_line(
    bundle_dir: Path, options: list[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["verify", *options, "--", str(bundle_dir)])
    assert leaving.value.code == 2


def test_a_reference_must_be_there_to_compare_with(
    bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(bundle_dir, runtimes=("openvino-cpu",))
    pictures = str(write_pictures(tmp_path / "pictures"))
    found = verified(bundle_dir, capsys, "--evaluation", pictures, status=1)
    assert "there is nothing to compare with" in found["error"]


def test_a_model_that_fails_on_a_batch_is_a_problem(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Golden outputs are what is asked first; a wrong bias is over the tolerance on both runtimes."""
    model = tiny_model(32)
    for constant in model.graph.initializer:
        if constant.name == "bias":
            constant.raw_data = b"\x00\x00\xc0\x7f"  # not a number
    onnx.save(model, bundle_dir / "model.onnx")
    rewritten(bundle_dir)
    found = verified(bundle_dir, capsys, status=1)
    assert all("is not finite" in one["problems"][0] for one in found["variants"])


def test_the_report_is_written_where_it_is_asked_for(
    bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_manifest(bundle_dir)
    path = tmp_path / "report.json"
    found = verified(bundle_dir, capsys, "--report", str(path))
    written = json.loads(path.read_text())
    assert written["variants"] == found["variants"]
    assert written["subject"]["packages"].keys() >= {"onnxruntime", "openvino"}
    assert read_manifest(bundle_dir) == before


def test_a_report_joins_an_unsigned_bundle_and_the_manifest_lists_it(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verified(bundle_dir, capsys, "--into-bundle")
    assert "verify-report.json" in {entry.path for entry in read_manifest(bundle_dir).files}
    assert load_bundle(bundle_dir).runtime.name == "onnxruntime-cpu"
    verified(bundle_dir, capsys, "--into-bundle")  # a newer one takes its place


def test_no_report_joins_a_signed_bundle(
    bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_signer(tmp_path).sign(bundle_dir)
    before = {path.name: path.read_bytes() for path in bundle_dir.iterdir()}
    found = verified(bundle_dir, capsys, "--into-bundle", status=1)
    assert "is signed" in found["error"]
    assert {path.name: path.read_bytes() for path in bundle_dir.iterdir()} == before


def test_no_report_of_a_problem_joins_a_bundle(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_int8(bundle_dir, tolerance=1e-6)
    found = verified(bundle_dir, capsys, "--into-bundle", status=1)
    assert "gets no verify-report.json" in found["error"]
    assert not (bundle_dir / "verify-report.json").exists()
