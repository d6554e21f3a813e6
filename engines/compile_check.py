"""A model's graph in the precision of a plan, and what that precision costs, on the CPU.

In: a request, the source's manifest, a precision. Out: the graph, its distance from the golden outputs and,
where there are pictures to judge by, what becomes of the AUC. Errors: ``BundleError``.

A plan runs on GPUs alone. Its graph runs here, so that a precision that ruins the model is found out
before there is a plan.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from engines.agreement import check_golden
from engines.compile.calibration import NOTHING_READ, Calibration, read_calibration
from engines.compile.graphs import cpu_graph, typed_graph
from engines.compile.request import Request
from engines.golden import read_golden
from engines.manifest import BundleError, Manifest, Precision
from engines.parity.evaluation import Evaluation, evaluate, refuse_loss
from engines.parity.pictures import Judge, Labelled
from engines.runtime.batch import Graph
from engines.runtime.onnxruntime_cpu import OnnxRuntimeCpu

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Checked:
    """A graph to build a plan of.

    Attributes:
        graph: ONNX bytes.
        golden_max_difference: of a logit; None where the CPU cannot run the graph.
        evaluation: of the model and of this graph; None where no pictures were given, the graph is
            the model's own, or the CPU cannot run it.
    """

    graph: bytes
    golden_max_difference: float | None
    evaluation: Evaluation | None

    @property
    def auc_difference(self) -> float | None:
        """The graph's AUC less the model's."""
        return self.evaluation.results[1].auc_difference if self.evaluation else None


def checked_graph(
    request: Request,
    manifest: Manifest,
    precision: Precision,
    tolerances: Mapping[str, float],
    judge: Judge | None,
) -> Checked:
    """The model's graph in that precision, run on the CPU where that can be."""
    model = verified_bytes(request.source, manifest, manifest.model_file)
    calibration = NOTHING_READ
    if precision == "int8" and manifest.precision == "fp32":
        calibration = read_calibration(request.calibration, manifest.preprocess)
    graph = typed_graph(model, manifest.precision, precision, lambda: calibration.image_NHWC)
    runnable = cpu_graph(model, manifest.precision, precision, graph)
    if runnable is None:
        _log.warning("graph_not_checked", precision=precision, reason="the CPU cannot run it")
        return Checked(graph, None, None)
    update = {"precision": precision, "tolerances": dict(tolerances)}
    described = manifest.model_copy(update=update)
    runtime = OnnxRuntimeCpu(
        described, Graph(f"{manifest.model_file} in {precision}", precision, runnable), threads=1
    )
    try:
        difference = _golden_difference(request, described, runtime)
        evaluation = None
        if judge is not None and precision != manifest.precision:
            evaluation = _evaluated(manifest, model, runtime, _unseen(judge, calibration))
            typed = evaluation.results[1]
            refuse_loss(f"the model in {precision}", evaluation, typed, judge.auc_loss_max)
    finally:
        runtime.close()
    return Checked(graph, difference, evaluation)


def verified_bytes(source: Path, manifest: Manifest, path: str) -> bytes:
    """The very bytes that were verified, even if the file was replaced since."""
    data = (source / path).read_bytes()
    listed = next(entry.sha256 for entry in manifest.files if entry.path == path)
    if hashlib.sha256(data).hexdigest() != listed:
        raise BundleError(f"{source / path} changed while it was compiled: start again")
    return data


def _golden_difference(request: Request, described: Manifest, runtime: OnnxRuntimeCpu) -> float:
    golden = read_golden(verified_bytes(request.source, described, described.golden_file))
    try:
        return check_golden(runtime, described, golden)
    except BundleError as error:
        precision = described.precision
        raise BundleError(
            f"the model in {precision} is not what was evaluated: {error}; or ask for another "
            f"--precision, or, if you have measured what it costs, --tolerance {precision}=X"
        ) from error


def _unseen(judge: Judge, calibration: Calibration) -> list[Labelled]:
    found = [one for one in judge.pictures if _digest(one.path) not in calibration.digests]
    if len({one.is_fake for one in found}) != 2:  # noqa: PLR2004  real and fake
        raise BundleError(
            "of the pictures to judge by, all real or all fake ones calibrate int8 too: name other "
            "pictures for one of the two"
        )
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _evaluated(
    manifest: Manifest, model: bytes, runtime: OnnxRuntimeCpu, pictures: Sequence[Labelled]
) -> Evaluation:
    reference = OnnxRuntimeCpu(
        manifest, Graph(manifest.model_file, manifest.precision, model), threads=1
    )
    try:
        return evaluate([reference, runtime], manifest, pictures)
    finally:
        reference.close()
