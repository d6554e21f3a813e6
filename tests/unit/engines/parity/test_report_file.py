"""Where the report of ``verify --all-runtimes`` goes, and into which bundles."""

import json
from pathlib import Path

import pytest

from engines.bundle.manifest import read_manifest
from engines.bundle.verify import load_bundle
from tests.support.signing import make_signer
from tests.support.verified import verified, with_int8


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
