"""A bundle in, a new bundle with plans for GPUs out.

Errors: ``BundleError``, which says what to do.

Each graph is held to the golden outputs on the CPU before a plan is built from it, so that a
precision that ruins the model is found out here and not on the GPU.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from engines.compile.package import Plan, plan_path, refuse_taken, sm, write_compiled
from engines.compile.plan import COMPATIBLE_FROM, PlanOrder, architecture, build_plan
from engines.compile.progress import Watcher
from engines.compile.request import Compiled, Made, Request
from engines.compile.timing import read_timing, timing_path, write_timing
from engines.compile_check import checked_graph
from engines.cuda import Cuda, CudaError
from engines.manifest import BundleError, EngineFile, Lineage, Manifest, Precision
from engines.parity.pictures import Judge
from engines.tensorrt_api import Target, import_api, require_driver, version_of
from engines.verify import verify_files

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
