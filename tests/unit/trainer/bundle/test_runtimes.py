"""A new bundle lists what was tried on the exporting machine, with tolerances that were measured there."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from engines.agreement import measured_tolerance
from engines.manifest import PreprocessSpec
from engines.preprocess import PREPROCESS_VERSION
from engines.runtime.machine import BF16_FEATURES, this_machine
from tests.support.bundles import tiny_golden, tiny_manifest, tiny_model
from trainer.bundle.runtimes import with_openvino

SPEC = PreprocessSpec(version=PREPROCESS_VERSION, crop_policy="center", crop_px=32)
MANIFEST = tiny_manifest(SPEC)
GOLDEN = tiny_golden(SPEC)
MODEL = tiny_model(32).SerializeToString()
# What OpenVINO itself finds decides, not the flags alone.
HAS_BF16 = bool(this_machine().processor & BF16_FEATURES)


def test_openvino_is_the_second_runtime() -> None:
    listed = with_openvino(MANIFEST, MODEL, GOLDEN, this_machine())
    assert listed.runtimes == ("onnxruntime-cpu", "openvino-cpu")
    assert listed.tolerances["fp32"] == MANIFEST.tolerances["fp32"]
    assert ("bf16" in listed.tolerances) == HAS_BF16


def test_where_openvino_is_not_installed_it_is_not_listed() -> None:
    machine = replace(this_machine(), packages=frozenset({"onnxruntime"}))
    with capture_logs() as lines:
        assert with_openvino(MANIFEST, MODEL, GOLDEN, machine) == MANIFEST
    assert lines[0]["why"] == "the package openvino is not installed"


def test_what_openvino_computes_otherwise_is_not_listed() -> None:
    """A reference that is off by more than the tolerance stands for an OpenVINO that is."""
    wrong = replace(GOLDEN, logit_K=GOLDEN.logit_K + 1)
    with capture_logs() as lines:
        assert with_openvino(MANIFEST, MODEL, wrong, this_machine()) == MANIFEST
    assert lines[0]["log_level"] == "warning"
    assert "over the tolerance" in lines[0]["why"]


@pytest.mark.parametrize("features", [frozenset[str](), BF16_FEATURES])
def test_no_tolerance_is_guessed_for_bf16(features: frozenset[str]) -> None:
    """Neither where the processor lacks it, nor where it claims it and OpenVINO finds otherwise."""
    machine = replace(this_machine(), processor=features)
    with capture_logs() as lines:
        listed = with_openvino(MANIFEST, MODEL, GOLDEN, machine)
    if features and HAS_BF16:
        assert 1e-3 <= listed.tolerances["bf16"] < 0.5
        assert lines == []
    else:
        assert "bf16" not in listed.tolerances
        assert lines[0]["event"] == "precision_left_out"


def test_a_tolerance_is_twice_what_was_measured_and_never_nothing() -> None:
    assert measured_tolerance(0.25) == 0.5
    assert measured_tolerance(0.0) == 1e-3
