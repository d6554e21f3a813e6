"""The runtimes of a new bundle, tried on the exporting machine.

In: a manifest, the graph, its golden outputs. Out: the manifest with what was tried and found right.
Errors: none; a runtime that cannot be tried, or is not right, is left out and a log line says so.

fp32 alone: a lower precision may hold a tolerance and rank pictures worse. ``engines quantize`` judges
those by AUC, and adds what passes.
"""

import structlog

from engines.bundle.golden import Golden, check_golden
from engines.bundle.manifest import BundleError, Manifest
from engines.runtime import open_candidate
from engines.runtime.machine import Machine
from engines.runtime.selection import Candidate

_OPENVINO = "openvino-cpu"


def with_openvino(manifest: Manifest, model: bytes, golden: Golden, machine: Machine) -> Manifest:
    """The manifest with OpenVINO as its last runtime, if fp32 holds the manifest's tolerance there."""
    log = structlog.get_logger()
    if "openvino" not in machine.packages:
        log.info("runtime_left_out", runtime=_OPENVINO, why="the package openvino is not installed")
        return manifest
    candidate = Candidate(_OPENVINO, (manifest.model_file,), "fp32", on_gpu=False)
    try:
        runtime = open_candidate(candidate, manifest, {manifest.model_file: model}, 1)
        try:
            check_golden(runtime, manifest, golden)
        finally:
            runtime.close()
    except BundleError as error:
        log.warning("runtime_left_out", runtime=_OPENVINO, why=str(error))
        return manifest
    return manifest.model_copy(update={"runtimes": (*manifest.runtimes, _OPENVINO)})
