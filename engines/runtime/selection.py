"""Which runtime is to run a bundle here, and why no other: a decision on plain values.

In: the runtime and the device that the settings ask for, the manifest, the machine. Out: what to
open, best first, and what is passed over with the reason. Errors: ``BundleError``, where what was
asked for is not to be had; nothing else is taken in its place.

The order is the manifest's. Within a runtime its own files (``manifest.engines``) come before the
model: who lists one wants it used; int8 only where the processor gains by it. bf16 has no file; it is
the model in another precision, taken where the processor has it and the manifest a tolerance for it.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from engines.bundle.manifest import BundleError, Manifest, Precision
from engines.runtime.machine import BF16_FEATURES, INT8_FEATURES, Machine

AUTO: Final = "auto"
Device = Literal["auto", "cpu", "gpu"]

_NO_GPU: Final = (
    "no NVIDIA GPU with a working driver was found (libcuda.so.1): install the driver, or give "
    "the container the GPU"
)


@dataclass(frozen=True)
class Kind:
    """One runtime that this release has.

    Attributes:
        name: as in a manifest and in the settings.
        package: what must be importable.
        install: how to get it.
        on_gpu: it needs an NVIDIA GPU, and a plan of its own in the bundle.
        computes_bf16: it can compute the model in bf16, with no file of its own.
        exact_int8: its int8 logits are the same on every processor.
    """

    name: str
    package: str
    install: str
    on_gpu: bool = False
    computes_bf16: bool = False
    exact_int8: bool = False

    def int8_problem(self, machine: Machine) -> str | None:
        """Why its int8 logits are not to be had on this machine; None where they are."""
        if self.exact_int8 or machine.processor & INT8_FEATURES:
            return None
        return f"its int8 overflows on this processor: {_lacks(INT8_FEATURES)}"


KINDS: Final[tuple[Kind, ...]] = (
    Kind("onnxruntime-cpu", "onnxruntime", "pip install onnxruntime", exact_int8=True),
    Kind("openvino-cpu", "openvino", "pip install openvino", computes_bf16=True),
    Kind("tensorrt", "tensorrt", "pip install tensorrt", on_gpu=True),
    Kind("tensorrt-rtx", "tensorrt_rtx", "pip install tensorrt-rtx-cu13", on_gpu=True),
)


@dataclass(frozen=True)
class Candidate:
    """Something to open.

    Attributes:
        runtime: whose it is.
        paths: the files to load; one for a CPU, all of its plans for a GPU, which chooses among them.
        precision: what is computed in; None where that comes with the plan chosen.
        on_gpu: whether it needs the GPU.
    """

    runtime: str
    paths: tuple[str, ...]
    precision: Precision | None
    on_gpu: bool

    @property
    def label(self) -> str:
        """For people: ``openvino-cpu bf16 (model.onnx)``."""
        precision = f" {self.precision}" if self.precision else ""
        return f"{self.runtime}{precision} ({', '.join(self.paths)})"


@dataclass(frozen=True)
class PassedOver:
    """What is not used, and why."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True)
class Weighed:
    """The outcome for one machine.

    Attributes:
        candidates: what is to be opened, best first.
        passed_over: what is not, and why.
        possible: of those, what could be opened all the same; the model is better.
    """

    candidates: tuple[Candidate, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    possible: tuple[Candidate, ...] = ()


def weigh(name: str, manifest: Manifest, machine: Machine, device: Device = "auto") -> Weighed:
    """Weigh every runtime that the manifest names.

    Args:
        name: a runtime's name, or "auto".
        manifest: its ``runtimes`` are the order, its ``engines`` the files.
        machine: where it is to run.
        device: "cpu" or "gpu" leaves the other out; "auto" takes both.

    Raises:
        BundleError: no such runtime, none of the asked kind can run here, or the two contradict.
    """
    if device not in get_args(Device):
        raise BundleError(f"no device is called {device!r}: choose one of auto, cpu, gpu")
    known = {kind.name: kind for kind in KINDS}
    if name != AUTO:
        _refuse_name(name, device, manifest)
    candidates: list[Candidate] = []
    passed: list[PassedOver] = []
    possible: list[Candidate] = []
    for one in manifest.runtimes if name == AUTO else (name,):
        if one not in known:
            passed.append(PassedOver(one, f"this release has {', '.join(known)}"))
            continue
        found = _of_kind(known[one], manifest, machine, device)
        candidates += found.candidates
        passed += found.passed_over
        possible += found.possible
    if not candidates:
        raise nothing_left(name, device, passed)
    return Weighed(tuple(candidates), tuple(passed), tuple(possible))


def nothing_left(name: str, device: Device, passed: list[PassedOver]) -> BundleError:
    """The refusal where nothing that was asked for can be opened."""
    asked = {"auto": "", "cpu": " on the CPU", "gpu": " on a GPU"}[device]
    what = "no runtime of the bundle" if name == AUTO else name
    advice = "; or set engine.device to auto, to use the CPU" if device == "gpu" else ""
    return BundleError(f"{what} can run here{asked}: {'; '.join(map(str, passed))}{advice}")


def needed_paths(manifest: Manifest, machine: Machine) -> frozenset[str]:
    """The files whose bytes a machine may have to load: the model, and those of the runtimes it has."""
    usable = {kind.name for kind in KINDS if _missing(kind, machine) is None}
    return frozenset({manifest.model_file}) | {
        one.path for one in manifest.engines if one.runtime in usable
    }


def apart(weighed: Weighed, manifest: Manifest) -> tuple[Candidate, ...]:
    """All that can be opened, one for each file: every plan by itself."""
    precisions = {one.path: one.precision for one in manifest.engines}
    return tuple(
        replace(one, paths=(path,), precision=one.precision or precisions[path])
        for one in (*weighed.candidates, *weighed.possible)
        for path in one.paths
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


def _of_kind(kind: Kind, manifest: Manifest, machine: Machine, device: Device) -> Weighed:
    if device != AUTO and kind.on_gpu != (device == "gpu"):
        return _none(kind.name, f"the settings ask for the {device}")
    missing = _missing(kind, machine)
    if missing is not None:
        return _none(kind.name, missing)
    return _on_gpu(kind, manifest) if kind.on_gpu else _on_cpu(kind, manifest, machine)


def _missing(kind: Kind, machine: Machine) -> str | None:
    if kind.on_gpu and machine.gpu is None:
        return _NO_GPU
    if kind.package not in machine.packages:
        return f"the package {kind.package} is not installed ({kind.install})"
    return None


def _on_gpu(kind: Kind, manifest: Manifest) -> Weighed:
    plans = tuple(one.path for one in manifest.engines if one.runtime == kind.name)
    if not plans:
        return _none(
            kind.name, "the bundle has no plan for it: make one by `python -m engines compile`"
        )
    return Weighed((Candidate(kind.name, plans, None, on_gpu=True),))


def _on_cpu(kind: Kind, manifest: Manifest, machine: Machine) -> Weighed:
    own = [
        Candidate(kind.name, (one.path,), one.precision, on_gpu=False)
        for one in manifest.engines
        if one.runtime == kind.name
    ]
    model = Candidate(kind.name, (manifest.model_file,), manifest.precision, on_gpu=False)
    slow = [one for one in own if one.precision == "int8" and not machine.processor & INT8_FEATURES]
    passed = [PassedOver(one.label, _lacks(INT8_FEATURES)) for one in slow]
    best = [one for one in own if one not in slow]
    if kind.computes_bf16 and manifest.precision == "fp32":
        bf16 = replace(model, precision="bf16")
        why = _no_bf16(manifest, machine)
        if why is None:
            best.append(bf16)
        else:
            passed.append(PassedOver(bf16.label, why))
    possible = slow if kind.exact_int8 else []
    return Weighed((*best, model), tuple(passed), tuple(possible))


def _no_bf16(manifest: Manifest, machine: Machine) -> str | None:
    if "bf16" not in manifest.tolerances:
        return (
            "the manifest has no tolerance for bf16: `engines quantize --precisions bf16` judges it"
        )
    if not machine.processor & BF16_FEATURES:
        return _lacks(BF16_FEATURES)
    return None


def _lacks(features: frozenset[str]) -> str:
    return f"the processor has none of {', '.join(sorted(features))}"


def _none(name: str, why: str) -> Weighed:
    return Weighed(passed_over=(PassedOver(name, why),))
