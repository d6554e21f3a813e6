"""From a strongly typed ONNX graph to the plan of one GPU architecture.

In: the library, the graph's bytes, what the plan is for. Out: the plan's bytes.
Errors: ``BundleError``, which names the operator, or says what the library said.

The precision is the graph's: nothing here lets the library choose another one.
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from engines.bundle.manifest import BundleError, InputSpec
from engines.runtime.tensorrt_api import Said, Target, make_logger, version_of


class Watcher(Protocol):
    """Sees the phases of one build; phases lie within phases."""

    def began(self, phase: str, within: str | None, steps: int) -> None:
        """A phase of so many steps; ``within`` is None for the whole build."""
        ...

    def stepped(self, phase: str, step: int) -> None:
        """Step ``step`` of the phase, counted from 0, is done."""
        ...

    def ended(self, phase: str) -> None:
        """The phase is over."""
        ...


class Interrupt:
    """Whether the person wants to stop; the builder is asked to at its next step."""

    def __init__(self) -> None:
        self.wanted = False


def make_monitor(api: ModuleType, watcher: Watcher, interrupt: Interrupt) -> object:
    """The library's progress monitor; Ctrl-C while it speaks ends the build at its next step."""
    base: Any = api.IProgressMonitor

    class _Monitor(base):  # type: ignore[misc]  # the library's classes are untyped
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 asks for this very call

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            try:
                watcher.began(phase_name, parent_phase, num_steps)
            except KeyboardInterrupt:
                interrupt.wanted = True

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                watcher.stepped(phase_name, step)
            except KeyboardInterrupt:
                interrupt.wanted = True
            return not interrupt.wanted

        def phase_finish(self, phase_name: str) -> None:
            try:
                watcher.ended(phase_name)
            except KeyboardInterrupt:
                interrupt.wanted = True

    return _Monitor()


class ConsoleWatcher:
    """A bar for each phase that is under way; in a file, nothing: the command says what was built."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._depths: dict[str, int] = {}
        self._lock = threading.Lock()

    def began(self, phase: str, within: str | None, steps: int) -> None:
        """Show the phase below the one that it lies within."""
        with self._lock:
            if not self._tasks:
                self._bars.start()
            depth = self._depths.get(within, -1) + 1 if within else 0
            self._depths[phase] = depth
            self._tasks[phase] = self._bars.add_task(f"{'  ' * depth}{phase}", total=steps)
            self._bars.refresh()  # a phase may be over before the bars are drawn again

    def stepped(self, phase: str, step: int) -> None:
        """Move the phase's bar on."""
        with self._lock:
            if phase in self._tasks:
                self._bars.update(self._tasks[phase], completed=step + 1)

    def ended(self, phase: str) -> None:
        """Take the phase's bar away."""
        with self._lock:
            task = self._tasks.pop(phase, None)
            if task is not None:
                self._bars.remove_task(task)
            if not self._tasks:
                self._bars.stop()


def timing_path(bundle: Path, stem: str) -> Path:
    """Beside the bundle, one for each library, release and GPU architecture (``stem``)."""
    return bundle.parent / f"{bundle.name}.{stem}.timing"


def read_timing(path: Path) -> bytes:
    """What an earlier build left; nothing if there was none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): remove it") from error


def write_timing(path: Path, data: bytes) -> None:
    """Replace it, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BundleError(
            f"{path} cannot be written ({error.strerror}): make its directory writable"
        ) from error


_log = structlog.get_logger(__name__)
_RGB_CHANNELS: Final = 3
# What hardware-compatible plans of both libraries run on, and on all that came later: Ampere.
COMPATIBLE_FROM: Final = "8.0"


@dataclass(frozen=True)
class PlanOrder:
    """What a plan is for.

    Attributes:
        target: which library builds and runs it.
        spec: the model's input; its batches are the optimization profile.
        output_name: the model's one output.
        capability: the GPU's compute capability, "8.9".
        hardware_compatible: whether it is to run on that architecture and all later ones.
    """

    target: Target
    spec: InputSpec
    output_name: str
    capability: str
    hardware_compatible: bool


@dataclass(frozen=True)
class Built:
    """A plan, and what was measured for it (nothing, where the library measures nothing)."""

    plan: bytes
    timing: bytes


def build_plan(
    api: ModuleType, order: PlanOrder, model_bytes: bytes, timing: bytes, watcher: Watcher
) -> Built:
    """Build one plan.

    Args:
        api: the target's module.
        order: what the plan is for.
        model_bytes: the ONNX graph, weights inside, in the precision that it is to run in.
        timing: the timing cache of an earlier build; empty if there is none.
        watcher: is told how far it is.

    Raises:
        BundleError: the graph cannot be read or built, or not for that GPU.
    """
    said = Said()
    logger = make_logger(api, said)
    builder: Any = api.Builder(logger)
    network: Any = builder.create_network(0)
    _parse(api, network, logger, model_bytes, said)
    _check_tensors(api, network, order)
    config: Any = builder.create_builder_config()
    config.add_optimization_profile(_profile(builder, order.spec))
    config.clear_flag(api.BuilderFlag.TF32)  # fp32 is meant: TF32 keeps 10 bits of a mantissa
    _aim(api, config, order)
    cache = _with_timing(config, order.target, timing)
    interrupt = Interrupt()
    monitor = make_monitor(api, watcher, interrupt)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if interrupt.wanted:
        raise KeyboardInterrupt
    if plan is None:
        raise BundleError(
            f"{order.target.name} {version_of(api)} cannot build the model ({said.in_words()}): "
            "export it in another precision or with other operators"
        )
    return Built(bytes(plan), b"" if cache is None else bytes(cache.serialize()))


def _parse(
    api: ModuleType,
    network: Any,  # noqa: ANN401  an untyped library
    logger: object,
    model_bytes: bytes,
    said: Said,
) -> None:
    parser = api.OnnxParser(network, logger)
    if parser.parse(model_bytes):
        return
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    named = [
        f"operator {one.node_operator()} (node {one.node_name() or 'without a name'}): {one.desc()}"
        for one in found
        if one.node_operator()
    ]
    reasons = "; ".join(named) or "; ".join(one.desc() for one in found) or said.in_words()
    raise BundleError(
        f"the model cannot be read by {api.__name__} {version_of(api)}: {reasons}: export it with "
        "operators that the library has"
    )


def _check_tensors(
    api: ModuleType,
    network: Any,  # noqa: ANN401  an untyped library
    order: PlanOrder,
) -> None:
    """Refuses a graph that has become another one than the manifest describes."""
    spec = order.spec
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    shape = (-1, spec.height_px, spec.width_px, _RGB_CHANNELS)
    found = [(one.name, one.dtype, tuple(one.shape)) for one in (*inputs, *outputs)]
    expected = [
        (spec.name, api.DataType.UINT8, shape),
        (order.output_name, api.DataType.FLOAT, (-1,)),
    ]
    if found != expected:
        raise BundleError(
            f"the model has the tensors {found}, the manifest says {expected}: export the model "
            "and the manifest together"
        )


def _profile(builder: Any, spec: InputSpec) -> object:  # noqa: ANN401  an untyped library
    profile = builder.create_optimization_profile()
    least, best, most = (
        (batch, spec.height_px, spec.width_px, _RGB_CHANNELS)
        for batch in (spec.batch_min, spec.batch_opt, spec.batch_max)
    )
    profile.set_shape(spec.name, least, best, most)
    return profile


def _aim(api: ModuleType, config: Any, order: PlanOrder) -> None:  # noqa: ANN401  untyped
    """Tell the builder which GPUs the plan is for."""
    if order.target.ahead_of_time:
        # With none named, TensorRT-RTX builds for Ampere and all later architectures.
        if not order.hardware_compatible:
            config.num_compute_capabilities = 1
            config.set_compute_capability(architecture(api, order.target, order.capability), 0)
    elif order.hardware_compatible:
        config.hardware_compatibility_level = api.HardwareCompatibilityLevel.AMPERE_PLUS


def architecture(api: ModuleType, target: Target, capability: str) -> object:
    """What an ahead-of-time library calls a compute capability; ``BundleError`` if it has none."""
    known: dict[str, object] = {
        f"{name[2:-1]}.{name[-1]}": one
        for name, one in api.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if capability not in known:
        raise BundleError(
            f"{target.name} {version_of(api)} does not build for the compute capability "
            f"{capability}: choose one of {', '.join(known)}, or --hardware-compatible for "
            f"{COMPATIBLE_FROM} and later"
        )
    return known[capability]


def _with_timing(
    config: Any,  # noqa: ANN401  an untyped library
    target: Target,
    timing: bytes,
) -> Any:  # noqa: ANN401  an untyped library
    """Hand the builder what an earlier build measured; the cache that it fills from now on."""
    if not target.times_tactics:
        return None
    cache = config.create_timing_cache(timing)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        _log.warning("timing_cache_unused", reason="damaged, or of another GPU or release")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache
