"""``compile``: a new bundle with plans for GPUs.

In: a bundle and what to compile. Out: a new bundle. Errors: ``BundleError``, which says what to do.

A plan runs on GPUs only, but its graph also runs on the CPU. Each graph is therefore compared with
the golden outputs, and on labelled pictures if there are any, before its plan is built: a precision
that ruins the model is refused here, before it reaches a GPU.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Final

import structlog

from engines.bundle.golden import check_golden, read_golden
from engines.bundle.manifest import BundleError, EngineFile, Lineage, Manifest, Precision
from engines.bundle.verify import verify_files
from engines.compile.graphs import cpu_graph, typed_graph
from engines.compile.int8 import NO_CALIBRATION, CalibrationCrops, read_calibration
from engines.compile.package import PlanFile, plan_path, refuse_existing, sm, write_compiled
from engines.compile.plan import (
    COMPATIBLE_FROM,
    BuildProgress,
    PlanSpec,
    architecture,
    build_plan,
    read_timing,
    timing_path,
    write_timing,
)
from engines.parity.evaluation import (
    AucCheck,
    LabelledPicture,
    ParityEvaluation,
    check_auc_loss,
    evaluate,
)
from engines.runtime.cuda import Cuda, CudaError
from engines.runtime.onnxruntime import OnnxRuntimeCpu
from engines.runtime.protocol import Graph
from engines.runtime.tensorrt_api import Target, import_api, require_driver, version_of

_log = structlog.get_logger(__name__)

# How much a logit may differ from its reference if neither manifest nor caller says
# (docs/how-to/compile.md).
TOLERANCES: Final[Mapping[str, float]] = {"fp16": 0.05, "bf16": 0.4, "int8": 0.5}


@dataclass(frozen=True)
class CompileRequest:
    """What to compile.

    Attributes:
        source: the bundle, which stays as it is.
        out: the new bundle's directory, which must not exist.
        target: the library to build with.
        precisions: one plan for each, the preferred one first.
        capability: the GPU's compute capability; None for the target's default.
        hardware_compatible: for all later GPU architectures too.
        calibration: a directory of images, for int8.
        tolerances: by precision, instead of the manifest's or the defaults.
        version: of the new bundle; None for the source's.
    """

    source: Path
    out: Path
    target: Target
    precisions: tuple[Precision, ...]
    capability: str | None = None
    hardware_compatible: bool = False
    calibration: Path | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    version: str | None = None


@dataclass(frozen=True)
class BuiltPlan:
    """A plan of the new bundle.

    Attributes:
        engine: its entry in the manifest.
        bytes: its size.
        golden_max_difference: of its graph on the CPU; None if the CPU cannot run it.
        auc_difference: the graph's AUC minus the model's, on the CPU; None if not measured.
        built_s: how long building took.
    """

    engine: EngineFile
    bytes: int
    golden_max_difference: float | None
    auc_difference: float | None
    built_s: float


@dataclass(frozen=True)
class CompiledBundle:
    """The manifest of the new bundle, and its new plans."""

    manifest: Manifest
    plans: tuple[BuiltPlan, ...]


@dataclass(frozen=True)
class _GpuTarget:
    """Which GPUs the plans are for."""

    capability: str
    hardware_compatible: bool


def compile_bundle(
    request: CompileRequest, progress: BuildProgress, check: AucCheck | None = None
) -> CompiledBundle:
    """Verify the source, check and build a plan for each precision, write the new bundle."""
    refuse_existing(request.out)
    manifest = verify_files(request.source)
    precisions = tuple(dict.fromkeys(request.precisions))
    tolerances = _tolerances(manifest, precisions, request.tolerances)
    api = import_api(request.target)
    gpu = _gpu_target(request, api)
    files, plans = [], []
    for precision in precisions:
        checked = checked_graph(request, manifest, precision, tolerances, check)
        started_s = time.monotonic()
        file = _build(request, manifest, api, gpu, precision, checked.graph, progress)
        files.append(file)
        plans.append(
            BuiltPlan(
                engine=file.engine,
                bytes=len(file.data),
                golden_max_difference=checked.golden_max_difference,
                auc_difference=checked.auc_difference,
                built_s=time.monotonic() - started_s,
            )
        )
    changes: dict[str, object] = {"tolerances": tolerances, "lineage": _lineage(manifest, plans)}
    if request.version is not None:
        changes["version"] = request.version
    written = write_compiled(request.source, manifest, request.out, files, changes)
    return CompiledBundle(written, tuple(plans))


def _lineage(manifest: Manifest, plans: Sequence[BuiltPlan]) -> Lineage:
    """The source's lineage, and what each precision costs where that was measured."""
    costs = {
        f"{plan.engine.precision}.auc_difference.{plan.engine.runtime}": plan.auc_difference
        for plan in plans
        if plan.auc_difference is not None
    }
    lineage = manifest.lineage
    return lineage.model_copy(update={"config": {**lineage.config, **costs}})


def _tolerances(
    manifest: Manifest, precisions: Sequence[Precision], requested: Mapping[str, float]
) -> dict[str, float]:
    """The manifest's tolerances, and one for each precision to build."""
    known = {**TOLERANCES, **manifest.tolerances, **requested}
    for precision in precisions:
        if precision not in known:
            raise BundleError(
                f"neither the manifest nor this command has a tolerance for {precision}: add "
                f"--tolerance {precision}=X, the maximum difference of a logit"
            )
    return {**manifest.tolerances, **{precision: known[precision] for precision in precisions}}


def _gpu_target(request: CompileRequest, api: ModuleType) -> _GpuTarget:
    """Which GPUs to build for, from the request and this machine."""
    target, requested = request.target, request.capability
    if target.ahead_of_time:
        if request.hardware_compatible and requested is not None:
            raise BundleError(
                f"a plan of {target.name} is for one --compute-capability or "
                "--hardware-compatible: choose one of them"
            )
        if requested is not None:
            architecture(api, target, requested)  # refuse it before any graph is quantized
        return _GpuTarget(requested or COMPATIBLE_FROM, hardware_compatible=requested is None)
    here = _capability_here(target)
    if requested not in {None, here}:
        raise BundleError(
            f"{target.name} builds only for the GPU of this machine, compute capability {here}, "
            f"not for {requested}: compile on a machine with such a GPU"
        )
    portable = request.hardware_compatible
    return _GpuTarget(COMPATIBLE_FROM if portable else here, hardware_compatible=portable)


def _capability_here(target: Target) -> str:
    require_driver(f"compiling for {target.name}")
    try:
        return Cuda().compute_capability()
    except CudaError as error:
        raise BundleError(
            f"compiling for {target.name} cannot use the GPU ({error}): check it with `nvidia-smi`"
        ) from error


def _build(
    request: CompileRequest,
    manifest: Manifest,
    api: ModuleType,
    gpu: _GpuTarget,
    precision: Precision,
    graph: bytes,
    progress: BuildProgress,
) -> PlanFile:
    target, version = request.target, version_of(api)
    spec = PlanSpec(
        target, manifest.input, manifest.output_name, gpu.capability, gpu.hardware_compatible
    )
    cache = timing_path(request.source, f"{target.name}-{version}-{sm(gpu.capability)}")
    timing = read_timing(cache) if target.times_tactics else b""
    built = build_plan(api, spec, graph, timing, progress)
    if built.timing:
        write_timing(cache, built.timing)
    engine = EngineFile(
        path=plan_path(
            target.name,
            version,
            gpu.capability,
            precision,
            hardware_compatible=gpu.hardware_compatible,
        ),
        runtime=target.name,
        precision=precision,
        compute_capability=gpu.capability,
        runtime_version=version,
        hardware_compatible=gpu.hardware_compatible,
    )
    return PlanFile(engine, built.plan)


@dataclass(frozen=True)
class CheckedGraph:
    """A graph to build a plan from.

    Attributes:
        graph: ONNX bytes.
        golden_max_difference: of a logit; None if the CPU cannot run the graph.
        evaluation: of the model and of this graph; None without pictures, for the model's own
            graph, or if the CPU cannot run it.
    """

    graph: bytes
    golden_max_difference: float | None
    evaluation: ParityEvaluation | None

    @property
    def auc_difference(self) -> float | None:
        """The graph's AUC minus the model's."""
        return self.evaluation.results[1].auc_difference if self.evaluation else None


def checked_graph(
    request: CompileRequest,
    manifest: Manifest,
    precision: Precision,
    tolerances: Mapping[str, float],
    check: AucCheck | None,
) -> CheckedGraph:
    """The model's graph in that precision, checked on the CPU if the CPU can run it."""
    model = verified_bytes(request.source, manifest, manifest.model_file)
    calibration = NO_CALIBRATION
    if precision == "int8" and manifest.precision == "fp32":
        calibration = read_calibration(request.calibration, manifest.preprocess)
    graph = typed_graph(model, manifest.precision, precision, lambda: calibration.image_NHWC)
    runnable = cpu_graph(model, manifest.precision, precision, graph)
    if runnable is None:
        _log.warning("graph_not_checked", precision=precision, reason="the CPU cannot run it")
        return CheckedGraph(graph, None, None)
    update = {"precision": precision, "tolerances": dict(tolerances)}
    described = manifest.model_copy(update=update)
    runtime = OnnxRuntimeCpu(
        described, Graph(f"{manifest.model_file} in {precision}", precision, runnable), threads=1
    )
    try:
        difference = _golden_difference(request, described, runtime)
        evaluation = None
        if check is not None and precision != manifest.precision:
            evaluation = _evaluate(manifest, model, runtime, _unseen(check, calibration))
            result = evaluation.results[1]
            check_auc_loss(f"the model in {precision}", evaluation, result, check.auc_loss_max)
    finally:
        runtime.close()
    return CheckedGraph(graph, difference, evaluation)


def verified_bytes(source: Path, manifest: Manifest, path: str) -> bytes:
    """The bytes of a file that was verified; ``BundleError`` if it was replaced since."""
    data = (source / path).read_bytes()
    listed = next(entry.sha256 for entry in manifest.files if entry.path == path)
    if hashlib.sha256(data).hexdigest() != listed:
        raise BundleError(f"{source / path} changed while it was compiled: start again")
    return data


def _golden_difference(
    request: CompileRequest, described: Manifest, runtime: OnnxRuntimeCpu
) -> float:
    golden = read_golden(verified_bytes(request.source, described, described.golden_file))
    try:
        return check_golden(runtime, described, golden)
    except BundleError as error:
        precision = described.precision
        raise BundleError(
            f"the model in {precision} is not what was evaluated: {error}; or choose another "
            f"--precision, or, if you have measured what it costs, --tolerance {precision}=X"
        ) from error


def _unseen(check: AucCheck, calibration: CalibrationCrops) -> list[LabelledPicture]:
    """The pictures that did not calibrate int8."""
    unseen = [
        picture
        for picture in check.pictures
        if hashlib.sha256(picture.path.read_bytes()).hexdigest() not in calibration.digests
    ]
    if len({picture.is_fake for picture in unseen}) != 2:  # noqa: PLR2004  real and fake
        raise BundleError(
            "all real or all fake evaluation pictures also calibrate int8: use other pictures for "
            "one of the two"
        )
    return unseen


def _evaluate(
    manifest: Manifest,
    model: bytes,
    runtime: OnnxRuntimeCpu,
    pictures: Sequence[LabelledPicture],
) -> ParityEvaluation:
    reference = OnnxRuntimeCpu(
        manifest, Graph(manifest.model_file, manifest.precision, model), threads=1
    )
    try:
        return evaluate([reference, runtime], manifest, pictures)
    finally:
        reference.close()
