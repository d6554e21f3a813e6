"""A bundle is used only if every file is as it was exported."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from engines.bundle.manifest import (
    BundleError,
    EngineFile,
    Manifest,
    manifest_sha256,
    read_manifest,
)
from engines.bundle.verify import load_bundle, read_bundle, verify_files
from engines.runtime import Device, Runtime, open_runtime
from engines.runtime.machine import Machine
from tests.support.bundles import make_tiny_bundle, reference_logit_N, rewritten


@pytest.fixture(name="bundle_dir")
def _bundle_dir(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "bundle", max_crops=4)


def test_a_sound_bundle_is_loaded(bundle_dir: Path) -> None:
    bundle = load_bundle(bundle_dir)
    assert bundle.sha256 == manifest_sha256(bundle_dir)
    assert bundle.directory == bundle_dir
    assert bundle.manifest == verify_files(bundle_dir)
    assert 0 < bundle.golden_max_difference < 1e-5
    image_NHWC = np.zeros((2, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(
        bundle.runtime.infer(image_NHWC), reference_logit_N(image_NHWC), atol=1e-5
    )
    model = next(one for one in bundle.manifest.files if one.path == "model.onnx")
    assert bundle.runtime.engine_sha256 == model.sha256


def test_a_bundle_is_loaded_through_a_link_to_its_directory(bundle_dir: Path) -> None:
    link = bundle_dir.parent / "current"
    link.symlink_to(bundle_dir)
    assert load_bundle(link).sha256 == manifest_sha256(bundle_dir)


def flip_a_byte(path: Path, at: int) -> None:
    """Alter a file without changing its length."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "MODEL_CARD.md"])
def test_an_altered_file_is_refused(bundle_dir: Path, name: str) -> None:
    flip_a_byte(bundle_dir / name, 20)
    with pytest.raises(BundleError, match=rf"{name} was altered.*copy the whole bundle again"):
        load_bundle(bundle_dir)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "MODEL_CARD.md"])
def test_a_missing_file_is_refused(bundle_dir: Path, name: str) -> None:
    (bundle_dir / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        verify_files(bundle_dir)


def test_a_file_of_another_length_is_refused_by_its_length(bundle_dir: Path) -> None:
    with (bundle_dir / "model.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BundleError, match=r"model\.onnx has \d+ bytes, manifest\.json says \d+"):
        verify_files(bundle_dir)


@pytest.mark.parametrize("name", ["model.onnx.data", "plans/sm90.plan", ".hidden"])
def test_a_stranger_is_refused(bundle_dir: Path, name: str) -> None:
    (bundle_dir / name).parent.mkdir(exist_ok=True)
    (bundle_dir / name).write_bytes(b"stranger")
    with pytest.raises(BundleError, match=rf"{name} is not listed in manifest\.json: remove it"):
        verify_files(bundle_dir)


def test_files_in_folders_are_verified_too(bundle_dir: Path) -> None:
    (bundle_dir / "plans").mkdir()
    (bundle_dir / "plans" / "sm90.plan").write_bytes(b"plan")
    rewritten(bundle_dir)
    assert "plans/sm90.plan" in {entry.path for entry in verify_files(bundle_dir).files}
    flip_a_byte(bundle_dir / "plans" / "sm90.plan", 0)
    with pytest.raises(BundleError, match=r"sm90\.plan was altered"):
        verify_files(bundle_dir)


def test_a_symbolic_link_is_refused_even_to_the_right_bytes(bundle_dir: Path) -> None:
    outside = bundle_dir.parent / "elsewhere.onnx"
    (bundle_dir / "model.onnx").rename(outside)
    (bundle_dir / "model.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match=r"model\.onnx is a symbolic link"):
        load_bundle(bundle_dir)


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_without_waiting_for_it(bundle_dir: Path) -> None:
    (bundle_dir / "model.onnx").unlink()
    os.mkfifo(bundle_dir / "model.onnx")
    with pytest.raises(BundleError, match="is not a plain file"):
        load_bundle(bundle_dir)


def test_a_directory_in_place_of_a_file_is_refused(bundle_dir: Path) -> None:
    (bundle_dir / "MODEL_CARD.md").unlink()
    (bundle_dir / "MODEL_CARD.md").mkdir()
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md"):
        verify_files(bundle_dir)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_a_manifest_that_does_not_list_what_is_loaded_is_refused(
    bundle_dir: Path, name: str
) -> None:
    (bundle_dir / name).unlink()
    rewritten(bundle_dir)
    with pytest.raises(BundleError, match=rf"lists no {name}"):
        load_bundle(bundle_dir)


def with_plan(directory: Path) -> Path:
    """The bundle with a file for TensorRT; returns the file."""
    plan = directory / "plans" / "sm90.plan"
    plan.parent.mkdir()
    plan.write_bytes(b"a plan")
    engine = EngineFile(path="plans/sm90.plan", runtime="tensorrt", precision="fp32")
    rewritten(directory, engines=(engine,))
    return plan


def test_what_the_machine_cannot_load_is_checked_and_not_kept(bundle_dir: Path) -> None:
    plan = with_plan(bundle_dir)
    without = Machine(frozenset({"onnxruntime"}), frozenset(), gpu=None)
    with_gpu = Machine(frozenset({"onnxruntime", "tensorrt"}), frozenset(), gpu="9.0")
    assert set(read_bundle(bundle_dir, without).files) == {"model.onnx", "golden.npz"}
    assert read_bundle(bundle_dir, with_gpu).files["plans/sm90.plan"] == b"a plan"
    flip_a_byte(plan, 0)
    with pytest.raises(BundleError, match=r"sm90\.plan was altered"):
        read_bundle(bundle_dir, without)


def test_an_engine_file_that_the_manifest_does_not_list_as_a_file_is_refused(
    bundle_dir: Path,
) -> None:
    with_plan(bundle_dir).unlink()
    rewritten(bundle_dir)
    with pytest.raises(BundleError, match=r"lists no plans/sm90\.plan"):
        load_bundle(bundle_dir)


def test_an_unknown_schema_version_is_refused(bundle_dir: Path) -> None:
    path = bundle_dir / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"schema_version": 2}))
    with pytest.raises(BundleError, match="schema_version 2"):
        load_bundle(bundle_dir)


def test_a_bundle_of_another_preprocessing_is_refused(bundle_dir: Path) -> None:
    spec = read_manifest(bundle_dir).preprocess.model_copy(update={"version": "0"})
    rewritten(bundle_dir, preprocess=spec)
    with pytest.raises(BundleError, match=r"preprocessing '0'"):
        load_bundle(bundle_dir)


def test_a_file_replaced_after_hashing_changes_nothing(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was hashed is what is loaded: there is no moment between the two."""

    def replacing(
        name: str,
        manifest: Manifest,
        files: Mapping[str, bytes],
        threads: int,
        *,
        device: Device,
        machine: Machine,
    ) -> Runtime:
        (bundle_dir / "model.onnx").write_bytes(b"replaced")
        return open_runtime(name, manifest, files, threads, device=device, machine=machine)

    monkeypatch.setattr("engines.bundle.verify.open_runtime", replacing)
    bundle = load_bundle(bundle_dir)
    assert bundle.runtime.infer(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1,)
