"""A bundle in, a new bundle with plans for GPUs out.

Errors: ``BundleError``, which says what to do.

Each graph is held to the golden outputs on the CPU before a plan is built from it, so that a
precision that ruins the model is found out here and not on the GPU.
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
from engines.compile.int8 import NOTHING_READ, CalibrationCrops, read_calibration
from engines.compile.package import Plan, plan_path, refuse_taken, sm, write_compiled
from engines.compile.plan import (
    COMPATIBLE_FROM,
    PlanOrder,
    Watcher,
    architecture,
    build_plan,
    read_timing,
    timing_path,
    write_timing,
)
from engines.parity.evaluation import Evaluation, Judge, Labelled, evaluate, refuse_loss
from engines.runtime.cuda import Cuda, CudaError
from engines.runtime.onnxruntime import OnnxRuntimeCpu
from engines.runtime.protocol import Graph
from engines.runtime.tensorrt_api import Target, import_api, require_driver, version_of


@dataclass(frozen=True)
class Request:
    """What is to be compiled.

    Attributes:
        source: the bundle; it stays as it is.
        out: the new bundle's directory, which must not be there yet.
        target: the library to build with.
        precisions: a plan for each, the preferred one first.
        capability: the GPU's compute capability; None for what the target takes by default.
        hardware_compatible: for all later architectures too.
        calibration: a directory of images, for int8.
        tolerances: by precision, in place of the manifest's or the defaults.
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
class Made:
    """One plan of the new bundle.

    Attributes:
        engine: what the manifest says of it.
        bytes: its length.
        golden_max_difference: of the graph, on the CPU; None where the CPU cannot run it.
        auc_difference: of the graph, on the CPU, from the model; None where it was not judged.
        built_s: how long building took.
    """

    engine: EngineFile
    bytes: int
    golden_max_difference: float | None
    auc_difference: float | None
    built_s: float


@dataclass(frozen=True)
class Compiled:
    """The new bundle: its manifest, and what was made for it."""

    manifest: Manifest
    made: tuple[Made, ...]


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


def _unseen(judge: Judge, calibration: CalibrationCrops) -> list[Labelled]:
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


# How far a logit may lie from its reference where neither manifest nor caller says (docs/how-to/compile.md).
TOLERANCES: Final[Mapping[str, float]] = {"fp16": 0.05, "bf16": 0.4, "int8": 0.5}


@dataclass(frozen=True)
class _Aim:
    """Which GPUs the plans are for."""

    capability: str
    hardware_compatible: bool


def compile_bundle(request: Request, watcher: Watcher, judge: Judge | None = None) -> Compiled:
    """Verify the source, judge and build a plan for each precision, write the new bundle."""
    refuse_taken(request.out)
    manifest = verify_files(request.source)
    wanted = tuple(dict.fromkeys(request.precisions))
    tolerances = _tolerances(manifest, wanted, request.tolerances)
    api = import_api(request.target)
    aim = _aim(request, api)
    plans, made = [], []
    for precision in wanted:
        checked = checked_graph(request, manifest, precision, tolerances, judge)
        began_s = time.monotonic()
        plan = _build(request, manifest, api, aim, precision, checked.graph, watcher)
        took_s = time.monotonic() - began_s
        plans.append(plan)
        far, cost = checked.golden_max_difference, checked.auc_difference
        made.append(Made(plan.engine, len(plan.data), far, cost, took_s))
    changes: dict[str, object] = {"tolerances": tolerances, "lineage": _lineage(manifest, made)}
    if request.version is not None:
        changes["version"] = request.version
    written = write_compiled(request.source, manifest, request.out, plans, changes)
    return Compiled(written, tuple(made))


def _lineage(manifest: Manifest, made: Sequence[Made]) -> Lineage:
    """The source's, and what each precision cost where that was measured."""
    costs = {
        f"{one.engine.precision}.auc_difference.{one.engine.runtime}": one.auc_difference
        for one in made
        if one.auc_difference is not None
    }
    lineage = manifest.lineage
    return lineage.model_copy(update={"config": {**lineage.config, **costs}})


def _tolerances(
    manifest: Manifest, wanted: tuple[Precision, ...], asked: Mapping[str, float]
) -> dict[str, float]:
    """The manifest's, and one for each precision that is wanted."""
    known = {**TOLERANCES, **manifest.tolerances, **asked}
    for precision in wanted:
        if precision not in known:
            raise BundleError(
                f"neither the manifest nor this command has a tolerance for {precision}: give "
                f"--tolerance {precision}=X, the most that a logit may differ"
            )
    return {**manifest.tolerances, **{one: known[one] for one in wanted}}


def _aim(request: Request, api: ModuleType) -> _Aim:
    """Which GPUs, out of what was asked and what the machine has."""
    target, asked = request.target, request.capability
    if target.ahead_of_time:
        if request.hardware_compatible and asked is not None:
            raise BundleError(
                f"a plan of {target.name} is for one --compute-capability or "
                "--hardware-compatible: ask for one of them"
            )
        if asked is not None:
            architecture(api, target, asked)  # refused before a graph is quantized for nothing
        return _Aim(asked or COMPATIBLE_FROM, hardware_compatible=asked is None)
    here = _capability_here(target)
    if asked not in {None, here}:
        raise BundleError(
            f"{target.name} builds for the GPU at hand, of compute capability {here}, not for "
            f"{asked}: compile on a machine that has one"
        )
    portable = request.hardware_compatible
    return _Aim(COMPATIBLE_FROM if portable else here, hardware_compatible=portable)


def _capability_here(target: Target) -> str:
    require_driver(f"compiling for {target.name}")
    try:
        return Cuda().compute_capability()
    except CudaError as error:
        raise BundleError(
            f"compiling for {target.name} cannot use the GPU ({error}): check it with `nvidia-smi`"
        ) from error


def _build(
    request: Request,
    manifest: Manifest,
    api: ModuleType,
    aim: _Aim,
    precision: Precision,
    graph: bytes,
    watcher: Watcher,
) -> Plan:
    target, version = request.target, version_of(api)
    path = plan_path(
        target.name,
        version,
        aim.capability,
        precision,
        hardware_compatible=aim.hardware_compatible,
    )
    order = PlanOrder(
        target, manifest.input, manifest.output_name, aim.capability, aim.hardware_compatible
    )
    kept = timing_path(request.source, f"{target.name}-{version}-{sm(aim.capability)}")
    timing = read_timing(kept) if target.times_tactics else b""
    built = build_plan(api, order, graph, timing, watcher)
    if built.timing:
        write_timing(kept, built.timing)
    engine = EngineFile(
        path=path,
        runtime=target.name,
        precision=precision,
        compute_capability=aim.capability,
        runtime_version=version,
        hardware_compatible=aim.hardware_compatible,
    )
    return Plan(engine, built.plan)
