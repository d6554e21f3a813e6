"""Which runtime, and which plan, runs a bundle on this machine: a decision on plain values.

In: the runtime and device from the settings, the manifest, the machine. Out: what to open, best
first, and what is skipped and why. Errors: ``BundleError`` if the request cannot be met; nothing
else is used instead.

Runtimes come in the order of the manifest. Within a runtime, the files of ``manifest.engines`` come
before the model, because listing one means that it should be used; int8 only where the processor
gains by it. bf16 has no file: it is the model in another precision, used if the processor has bf16
and the manifest a tolerance for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from engines.bundle.manifest import BundleError, EngineFile, Manifest, Precision
from engines.runtime.machine import BF16_FEATURES, INT8_FEATURES, Machine

AUTO: Final = "auto"
Device = Literal["auto", "cpu", "gpu"]

_NO_GPU: Final = (
    "no NVIDIA GPU with a working driver was found (libcuda.so.1): install the driver, or give "
    "the container the GPU"
)


@dataclass(frozen=True)
class RuntimeKind:
    """A runtime of this release.

    Attributes:
        name: as in a manifest and in the settings.
        package: what must be importable.
        install: what to install for it.
        on_gpu: whether it needs an NVIDIA GPU, and a plan in the bundle.
        computes_bf16: whether it can compute the model in bf16, without a file for that.
        exact_int8: whether its int8 logits are the same on every processor.
    """

    name: str
    package: str
    install: str
    on_gpu: bool = False
    computes_bf16: bool = False
    exact_int8: bool = False

    def int8_problem(self, machine: Machine) -> str | None:
        """Why its int8 logits would be wrong on this machine; None if they are right."""
        if self.exact_int8 or machine.processor & INT8_FEATURES:
            return None
        return f"its int8 overflows on this processor: {_lacks(INT8_FEATURES)}"


KINDS: Final[tuple[RuntimeKind, ...]] = (
    RuntimeKind("onnxruntime-cpu", "onnxruntime", "onnxruntime", exact_int8=True),
    RuntimeKind("openvino-cpu", "openvino", "openvino", computes_bf16=True),
    RuntimeKind("tensorrt", "tensorrt", "tensorrt", on_gpu=True),
    RuntimeKind("tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx-cu13", on_gpu=True),
)


@dataclass(frozen=True)
class Candidate:
    """Something to open.

    Attributes:
        runtime: the runtime's name.
        paths: the files to load; one for a CPU, all plans for a GPU runtime, which chooses one.
        precision: what it computes in; None if the chosen plan decides.
        on_gpu: whether it needs the GPU.
    """

    runtime: str
    paths: tuple[str, ...]
    precision: Precision | None
    on_gpu: bool

    @property
    def label(self) -> str:
        """``openvino-cpu bf16 (model.onnx)``."""
        precision = f" {self.precision}" if self.precision else ""
        return f"{self.runtime}{precision} ({', '.join(self.paths)})"


@dataclass(frozen=True)
class SkippedRuntime:
    """What is not used, and why."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True)
class Selection:
    """The decision for a machine.

    Attributes:
        candidates: what to open, best first.
        skipped: what not to open, and why.
        possible: those of the skipped that would run, but worse than the model.
    """

    candidates: tuple[Candidate, ...] = ()
    skipped: tuple[SkippedRuntime, ...] = ()
    possible: tuple[Candidate, ...] = ()


def select_runtimes(
    name: str, manifest: Manifest, machine: Machine, device: Device = "auto"
) -> Selection:
    """Decide on every runtime that the manifest names.

    Args:
        name: a runtime's name, or "auto".
        manifest: ``runtimes`` is the order, ``engines`` the files.
        machine: where the bundle is to run.
        device: "cpu" or "gpu" excludes the other; "auto" allows both.

    Raises:
        BundleError: no such runtime, none that can run here, or name and device contradict.
    """
    if device not in get_args(Device):
        raise BundleError(f"no device is called {device!r}: choose one of auto, cpu, gpu")
    known = {kind.name: kind for kind in KINDS}
    if name != AUTO:
        _refuse_name(name, device, manifest)
    candidates: list[Candidate] = []
    skipped: list[SkippedRuntime] = []
    possible: list[Candidate] = []
    for runtime in manifest.runtimes if name == AUTO else (name,):
        if runtime not in known:
            skipped.append(SkippedRuntime(runtime, f"this release has {', '.join(known)}"))
            continue
        selection = _of_kind(known[runtime], manifest, machine, device)
        candidates += selection.candidates
        skipped += selection.skipped
        possible += selection.possible
    if not candidates:
        raise no_runtime_error(name, device, skipped)
    return Selection(tuple(candidates), tuple(skipped), tuple(possible))


def no_runtime_error(name: str, device: Device, skipped: Sequence[SkippedRuntime]) -> BundleError:
    """The refusal if nothing that was requested can be opened."""
    where = {"auto": "", "cpu": " on the CPU", "gpu": " on a GPU"}[device]
    what = "no runtime of the bundle" if name == AUTO else name
    advice = "; or set engine.device to auto, to use the CPU" if device == "gpu" else ""
    return BundleError(f"{what} can run here{where}: {'; '.join(map(str, skipped))}{advice}")


def needed_paths(manifest: Manifest, machine: Machine) -> frozenset[str]:
    """The files that a machine may have to load: the model, and those of its runtimes."""
    usable = {kind.name for kind in KINDS if _missing(kind, machine) is None}
    return frozenset({manifest.model_file}) | {
        engine.path for engine in manifest.engines if engine.runtime in usable
    }


def one_per_file(selection: Selection, manifest: Manifest) -> tuple[Candidate, ...]:
    """Everything that can be opened, a candidate for each file: each plan by itself."""
    precisions = {engine.path: engine.precision for engine in manifest.engines}
    return tuple(
        replace(candidate, paths=(path,), precision=candidate.precision or precisions[path])
        for candidate in (*selection.candidates, *selection.possible)
        for path in candidate.paths
    )


def _refuse_name(name: str, device: Device, manifest: Manifest) -> None:
    on_gpu = {kind.name: kind.on_gpu for kind in KINDS}
    if name not in on_gpu:
        raise BundleError(
            f"no runtime is called {name!r}: choose one of {AUTO}, {', '.join(on_gpu)}"
        )
    if name not in manifest.runtimes:
        allowed = ", ".join(manifest.runtimes)
        raise BundleError(f"the bundle was not exported for {name!r}: choose one of {allowed}")
    if device != AUTO and on_gpu[name] != (device == "gpu"):
        raise BundleError(
            f"the runtime {name} and the device {device!r} contradict each other: set one of "
            "engine.runtime and engine.device to auto"
        )


def _of_kind(kind: RuntimeKind, manifest: Manifest, machine: Machine, device: Device) -> Selection:
    if device != AUTO and kind.on_gpu != (device == "gpu"):
        return _skip(kind.name, f"the settings ask for the {device}")
    missing = _missing(kind, machine)
    if missing is not None:
        return _skip(kind.name, missing)
    return _on_gpu(kind, manifest) if kind.on_gpu else _on_cpu(kind, manifest, machine)


def _missing(kind: RuntimeKind, machine: Machine) -> str | None:
    if kind.on_gpu and machine.gpu is None:
        return _NO_GPU
    if kind.package not in machine.packages:
        return f"the package {kind.package} is not installed (pip install {kind.install})"
    return None


def _on_gpu(kind: RuntimeKind, manifest: Manifest) -> Selection:
    plans = tuple(engine.path for engine in manifest.engines if engine.runtime == kind.name)
    if not plans:
        return _skip(
            kind.name, "the bundle has no plan for it: make one with `python -m engines compile`"
        )
    return Selection((Candidate(kind.name, plans, None, on_gpu=True),))


def _on_cpu(kind: RuntimeKind, manifest: Manifest, machine: Machine) -> Selection:
    own = [
        Candidate(kind.name, (engine.path,), engine.precision, on_gpu=False)
        for engine in manifest.engines
        if engine.runtime == kind.name
    ]
    model = Candidate(kind.name, (manifest.model_file,), manifest.precision, on_gpu=False)
    gains_by_int8 = bool(machine.processor & INT8_FEATURES)
    slow = [] if gains_by_int8 else [graph for graph in own if graph.precision == "int8"]
    skipped = [SkippedRuntime(graph.label, _lacks(INT8_FEATURES)) for graph in slow]
    best = [graph for graph in own if graph not in slow]
    if kind.computes_bf16 and manifest.precision == "fp32":
        bf16 = replace(model, precision="bf16")
        why = _no_bf16(manifest, machine)
        if why is None:
            best.append(bf16)
        else:
            skipped.append(SkippedRuntime(bf16.label, why))
    possible = slow if kind.exact_int8 else []
    return Selection((*best, model), tuple(skipped), tuple(possible))


def _no_bf16(manifest: Manifest, machine: Machine) -> str | None:
    if "bf16" not in manifest.tolerances:
        return (
            "the manifest has no tolerance for bf16: `engines quantize --precisions bf16` adds one"
        )
    if not machine.processor & BF16_FEATURES:
        return _lacks(BF16_FEATURES)
    return None


def _lacks(features: frozenset[str]) -> str:
    return f"the processor has none of {', '.join(sorted(features))}"


def _skip(name: str, why: str) -> Selection:
    return Selection(skipped=(SkippedRuntime(name, why),))


class OtherMachineError(BundleError):
    """The bundle has plans, and none of them is for this machine."""


def choose_plan(manifest: Manifest, runtime: str, version: str, capability: str) -> EngineFile:
    """The plan of ``runtime`` that this machine can run.

    Args:
        manifest: the bundle's.
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        version: the exact release that is installed.
        capability: the compute capability of the GPU, "9.0".

    Returns:
        A plan for this architecture before one that also runs on it; among equals, the first.

    Raises:
        OtherMachineError: there are only plans for other machines; the message lists them.
        BundleError: there is no plan for the runtime.
    """
    plans = [engine for engine in manifest.engines if engine.runtime == runtime]
    again = f"compile the bundle on this machine: `python -m engines compile --target {runtime}`"
    if not plans:
        raise BundleError(f"the bundle has no plan for {runtime}: {again}")
    fitting = [plan for plan in plans if plan.runtime_version == version]
    if not fitting:
        raise OtherMachineError(
            f"the bundle has plans for {runtime} {_listed([p.runtime_version for p in plans])}, and "
            f"plans run on no other release; this machine has {version}: install that release, "
            f"or {again}"
        )
    exact = [plan for plan in fitting if plan.compute_capability == capability]
    chosen = exact or [plan for plan in fitting if _runs_on(plan, capability)]
    if not chosen:
        raise OtherMachineError(
            f"the bundle has plans of {runtime} {version} for GPUs of compute capability "
            f"{_listed([_reach(plan) for plan in fitting])}; this one has {capability}: {again}"
        )
    return chosen[0]


def _runs_on(plan: EngineFile, capability: str) -> bool:
    if plan.compute_capability is None or not plan.hardware_compatible:
        return False
    return _numbers(plan.compute_capability) <= _numbers(capability)


def _numbers(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))


def _reach(plan: EngineFile) -> str:
    later = " or later" if plan.hardware_compatible else ""
    return f"{plan.compute_capability}{later}"


def _listed(values: Sequence[str | None]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))
