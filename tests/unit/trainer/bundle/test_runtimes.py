"""A new bundle lists what was tried on the exporting machine, and no precision that nobody judged."""

from dataclasses import replace

from structlog.testing import capture_logs

from engines.bundle.manifest import PreprocessSpec
from engines.preprocess import PREPROCESS_VERSION
from engines.runtime.machine import BF16_FEATURES, this_machine
from engines.runtime.selection import select_runtimes
from tests.support.bundles import tiny_golden, tiny_manifest, tiny_model
from trainer.bundle.export import with_openvino

SPEC = PreprocessSpec(version=PREPROCESS_VERSION, crop_policy="center", crop_px=32)
MANIFEST = tiny_manifest(SPEC)
GOLDEN = tiny_golden(SPEC)
MODEL = tiny_model(32).SerializeToString()


def test_openvino_is_the_second_runtime() -> None:
    listed = with_openvino(MANIFEST, MODEL, GOLDEN, this_machine())
    assert listed.runtimes == ("onnxruntime-cpu", "openvino-cpu")
    assert listed.tolerances == MANIFEST.tolerances


def test_where_openvino_is_not_installed_it_is_not_listed() -> None:
    machine = replace(this_machine(), packages=frozenset({"onnxruntime"}))
    with capture_logs() as lines:
        assert with_openvino(MANIFEST, MODEL, GOLDEN, machine) == MANIFEST
    assert lines[0]["reason"] == "the package openvino is not installed"


def test_what_openvino_computes_otherwise_is_not_listed() -> None:
    """A reference that is off by more than the tolerance stands for an OpenVINO that is."""
    wrong = replace(GOLDEN, logit_K=GOLDEN.logit_K + 1)
    with capture_logs() as lines:
        assert with_openvino(MANIFEST, MODEL, wrong, this_machine()) == MANIFEST
    assert lines[0]["log_level"] == "warning"
    assert "over the tolerance" in lines[0]["reason"]


def test_a_processor_with_bf16_makes_no_bundle_that_runs_in_it() -> None:
    """Only ``engines quantize`` lets a bundle run in bf16, once its AUC was seen beside fp32's."""
    machine = replace(this_machine(), processor=this_machine().processor | BF16_FEATURES)
    listed = with_openvino(MANIFEST, MODEL, GOLDEN, machine)
    weighed = select_runtimes("openvino-cpu", listed, machine)
    assert [one.precision for one in weighed.candidates] == ["fp32"]
    assert "no tolerance for bf16" in weighed.skipped[0].why
