"""The manifest: what it accepts, what it refuses, and in which words."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engines.bundle.manifest import (
    BundleError,
    Calibration,
    Manifest,
    PreprocessSpec,
    manifest_sha256,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from tests.support.bundles import make_tiny_bundle, tiny_manifest

SPEC = PreprocessSpec(version="1", crop_policy="center", crop_px=32)


def altered(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The tiny manifest's JSON after a change."""
    document = json.loads(tiny_manifest(SPEC).model_dump_json())
    change(document)
    return json.dumps(document).encode()


def test_a_manifest_survives_being_written_and_read(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model")
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "sm90.plan").write_bytes(b"plan")
    written = write_manifest(tmp_path, tiny_manifest(SPEC))
    assert read_manifest(tmp_path) == written
    assert [(entry.path, entry.bytes) for entry in written.files] == [
        ("model.onnx", 5),
        ("plans/sm90.plan", 4),
    ]
    assert written.files[0].sha256 == (
        "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"
    )


def test_writing_twice_gives_the_same_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    identity = manifest_sha256(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    write_manifest(tmp_path, read_manifest(tmp_path))
    assert manifest_sha256(tmp_path) == identity
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_any_change_of_a_file_changes_the_identity(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    identity = manifest_sha256(tmp_path)
    (tmp_path / "MODEL_CARD.md").write_text("another card")
    write_manifest(tmp_path, read_manifest(tmp_path))
    assert manifest_sha256(tmp_path) != identity


def test_a_symbolic_link_is_not_written_into_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match="symbolic link"):
        write_manifest(tmp_path, tiny_manifest(SPEC))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema_version=2), "schema_version 2, this release reads 1"),
        (lambda d: d.pop("schema_version"), "schema_version None"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d.pop("lineage"), "lineage: Field required"),
        (lambda d: d.update(version="1.0"), "version"),
        (lambda d: d.update(name="../up"), "name"),
        (lambda d: d.update(created_at="2026-01-31T12:00:00"), "time zone"),
        (lambda d: d.update(default_threshold_set="strict"), "no threshold set"),
        (lambda d: d.update(precision="int8"), "tolerances has no entry"),
        (lambda d: d.update(runtimes=[]), "runtimes"),
        (lambda d: d["input"].update(height_px=64), "32 x 32 px"),
        (lambda d: d["input"].update(batch_opt=9), "batch_min <= batch_opt <= batch_max"),
        (lambda d: d["input"].update(colour_order="BGR"), "colour_order"),
        (lambda d: d["input"].update(std=[0.2, 0.0, 0.2]), "std"),
        (lambda d: d["input"].update(batch_max="8"), "batch_max"),
        (lambda d: d["preprocess"].update(max_crops=2), "'center' takes 1: set max_crops to 1"),
        (lambda d: d["preprocess"].update(crop_policy="five_crop"), "takes 5: set max_crops to 5"),
        (lambda d: d["preprocess"].update(crop_policy="random"), "'center', 'grid' or 'five_crop'"),
        (lambda d: d["preprocess"].update(alpha_background=[0, 0, 0]), "alpha_background"),
        (lambda d: d["calibration"].update(scale=0.0), "scale"),
        (lambda d: d["threshold_sets"][0]["block"].update(threshold=0.1), "at least review"),
        (lambda d: d["threshold_sets"][0]["block"].update(threshold=1.5), "threshold"),
        (lambda d: d["threshold_sets"].append(d["threshold_sets"][0]), "twice"),
        (lambda d: d.update(model_file="../model.onnx"), "inside the bundle"),
        (lambda d: d.update(model_file="/model.onnx"), "inside the bundle"),
    ],
)
def test_what_is_wrong_is_refused_and_named(
    change: Callable[[dict[str, Any]], object], said: str
) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json") as refusal:
        parse_manifest(altered(change))
    assert said in str(refusal.value)


@pytest.mark.parametrize("path", ["a/../b", "a//b", "./a", "a/", "a\\b", "..", ".", "", "/a"])
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    entry = {"path": path, "sha256": "0" * 64, "bytes": 0}
    with pytest.raises(BundleError, match="path"):
        parse_manifest(altered(lambda d: d.update(files=[entry])))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000])
def test_what_is_no_manifest_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(data)


def test_a_number_that_is_not_finite_is_refused() -> None:
    document = altered(lambda d: d["calibration"].update(bias=math.nan))
    with pytest.raises(BundleError, match="bias"):
        parse_manifest(document)


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="name the directory of a bundle"):
        read_manifest(tmp_path)


def test_a_huge_manifest_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(BundleError, match="it is not a manifest"):
        read_manifest(tmp_path)


def test_a_manifest_cannot_be_changed_in_place() -> None:
    manifest = tiny_manifest(SPEC)
    with pytest.raises(ValidationError):
        manifest.name = "other"  # type: ignore[misc]  # what is tested


@given(logit=st.floats(-1e308, 1e308))
def test_a_score_is_a_probability_whatever_the_logit(logit: float) -> None:
    assert 0.0 <= tiny_manifest(SPEC).score(logit) <= 1.0


@given(one=st.floats(-50, 50), other=st.floats(-50, 50))
def test_a_higher_logit_never_scores_lower(one: float, other: float) -> None:
    manifest = tiny_manifest(SPEC)
    lower, higher = sorted((one, other))
    assert manifest.score(lower) <= manifest.score(higher)


def test_a_score_is_the_sigmoid_of_the_calibrated_logit() -> None:
    manifest = tiny_manifest(SPEC)  # scale 1.5, bias -0.25
    for logit in (-3.0, -0.1, 0.0, 0.7, 4.0):
        expected = 1 / (1 + math.exp(-(1.5 * logit - 0.25)))
        assert manifest.score(logit) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("method", "scale", "bias"), [("none", 2.0, 0.0), ("none", 1.0, 0.5), ("temperature", 1.0, 0.5)]
)
def test_a_calibration_must_be_what_its_method_says(method: str, scale: float, bias: float) -> None:
    document = {"id": "c", "method": method, "scale": scale, "bias": bias, "fitted_on": "x", "n": 1}
    with pytest.raises(ValidationError, match="means"):
        Calibration.model_validate(document)


def test_a_threshold_set_is_found_by_its_id_or_by_default() -> None:
    manifest = tiny_manifest(SPEC)
    assert manifest.threshold_set() is manifest.threshold_set("default")
    with pytest.raises(BundleError, match="choose one of default"):
        manifest.threshold_set("strict")


def test_a_threshold_set_is_found_without_the_name_and_version_in_its_id() -> None:
    """So one setting serves every version of a channel; a whole id comes first, and errors name ids."""
    (one,) = tiny_manifest(SPEC).threshold_sets
    sets = tuple(one.model_copy(update={"id": name}) for name in ("tiny-0.1.0-strict", "default"))
    manifest = tiny_manifest(SPEC).model_copy(update={"threshold_sets": sets})
    assert manifest.threshold_set("strict").id == "tiny-0.1.0-strict"
    assert manifest.threshold_set("tiny-0.1.0-strict").id == "tiny-0.1.0-strict"
    with pytest.raises(BundleError, match=r"choose one of tiny-0\.1\.0-strict, default"):
        manifest.threshold_set("0.1.0-strict")
    both = (sets[0], one.model_copy(update={"id": "strict"}))
    assert manifest.model_copy(update={"threshold_sets": both}).threshold_set("strict") is both[1]


def test_times_are_kept_in_utc() -> None:
    document = altered(lambda d: d.update(created_at="2026-01-31T13:00:00+01:00"))
    manifest: Manifest = parse_manifest(document)
    assert manifest.created_at.isoformat() == "2026-01-31T12:00:00+00:00"
