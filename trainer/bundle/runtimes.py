"""The runtimes and tolerances of a new bundle, measured on the exporting machine.

In: a manifest, the graph, its golden outputs. Out: the manifest with what was tried and found right.
Errors: none; a runtime that cannot be tried, or is not right, is left out and a log line says so.

A tolerance that nobody measured would be a guess: bf16 has one only where the processor computes in it.
"""

import structlog

from engines.agreement import check_golden, golden_logits, measured_tolerance
from engines.golden import Golden
from engines.manifest import BundleError, Manifest, Precision
from engines.runtime import Runtime, open_candidate
from engines.runtime.machine import BF16_FEATURES, Machine
from engines.runtime.selection import Candidate

_OPENVINO = "openvino-cpu"


def with_openvino(manifest: Manifest, model: bytes, golden: Golden, machine: Machine) -> Manifest:
    """The manifest with OpenVINO as its last runtime, and a tolerance for bf16 if it was measured.

    fp32 must hold the tolerance that ONNX Runtime holds. bf16's tolerance is measured: by
    ``measured_tolerance``, of the largest difference on the golden outputs.
    """
    log = structlog.get_logger()
    if "openvino" not in machine.packages:
        log.info("runtime_left_out", runtime=_OPENVINO, why="the package openvino is not installed")
        return manifest
    try:
        runtime = _opened(manifest, model, "fp32")
        try:
            check_golden(runtime, manifest, golden)
        finally:
            runtime.close()
    except BundleError as error:
        log.warning("runtime_left_out", runtime=_OPENVINO, why=str(error))
        return manifest
    listed = manifest.model_copy(update={"runtimes": (*manifest.runtimes, _OPENVINO)})
    tolerance = _bf16_tolerance(manifest, model, golden, machine)
    if tolerance is None:
        return listed
    return listed.model_copy(update={"tolerances": {**manifest.tolerances, "bf16": tolerance}})


def _bf16_tolerance(
    manifest: Manifest, model: bytes, golden: Golden, machine: Machine
) -> float | None:
    why = f"the processor has none of {', '.join(sorted(BF16_FEATURES))}"
    if machine.processor & BF16_FEATURES:
        try:
            runtime = _opened(manifest, model, "bf16")
            try:
                differences = golden_logits(runtime, manifest, golden).differences(golden)
            finally:
                runtime.close()
            return measured_tolerance(max(differences.values()))
        except BundleError as error:
            why = str(error)
    structlog.get_logger().info("precision_left_out", runtime=_OPENVINO, precision="bf16", why=why)
    return None


def _opened(manifest: Manifest, model: bytes, precision: Precision) -> Runtime:
    candidate = Candidate(_OPENVINO, (manifest.model_file,), precision, on_gpu=False)
    return open_candidate(candidate, manifest, {manifest.model_file: model}, 1)
