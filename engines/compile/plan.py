"""From a strongly typed ONNX graph to the plan of one GPU architecture.

In: the library, the graph's bytes, what the plan is for. Out: the plan's bytes.
Errors: ``BundleError``, which names the operator, or repeats what the library logged.

The precision is the graph's: nothing here lets the library choose another one.

The builder reports its phases to a ``BuildProgress``, from any of its threads. What it measured of
its kernels is kept beside the bundle, for the next build.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from engines.bundle.files import write_atomically
from engines.bundle.manifest import BundleError, InputSpec
from engines.runtime.protocol import RGB_CHANNELS
from engines.runtime.tensorrt_api import LogCapture, Target, make_logger, version_of

_log = structlog.get_logger(__name__)
# Hardware-compatible plans of both libraries run on Ampere and every later architecture.
COMPATIBLE_FROM: Final = "8.0"


class BuildProgress(Protocol):
    """Receives the phases of one build; phases are nested."""

    def phase_started(self, phase: str, within: str | None, steps: int) -> None:
        """A phase of ``steps`` steps began; ``within`` is None for the whole build."""
        ...

    def step_done(self, phase: str, step: int) -> None:
        """Step ``step`` of the phase, counted from 0, is done."""
        ...

    def phase_ended(self, phase: str) -> None:
        """The phase is over."""
        ...


class Interrupt:
    """Whether the user pressed Ctrl-C; the builder stops at its next step."""

    def __init__(self) -> None:
        self.wanted = False


def make_monitor(api: ModuleType, progress: BuildProgress, interrupt: Interrupt) -> object:
    """The library's progress monitor.

    No exception may pass through the library, which would end the process: Ctrl-C sets ``interrupt``
    and ends the build at its next step.
    """
    base: Any = api.IProgressMonitor

    class _Monitor(base):  # type: ignore[misc]  # the library's classes are untyped
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 needs exactly this call

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            try:
                progress.phase_started(phase_name, parent_phase, num_steps)
            except KeyboardInterrupt:
                interrupt.wanted = True

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                progress.step_done(phase_name, step)
            except KeyboardInterrupt:
                interrupt.wanted = True
            return not interrupt.wanted

        def phase_finish(self, phase_name: str) -> None:
            try:
                progress.phase_ended(phase_name)
            except KeyboardInterrupt:
                interrupt.wanted = True

    return _Monitor()


class ConsoleProgress:
    """A progress bar for each running phase; nothing if the output is not a terminal."""

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

    def phase_started(self, phase: str, within: str | None, steps: int) -> None:
        """Show the phase below the one that contains it."""
        with self._lock:
            if not self._tasks:
                self._bars.start()
            depth = self._depths.get(within, -1) + 1 if within else 0
            self._depths[phase] = depth
            self._tasks[phase] = self._bars.add_task(f"{'  ' * depth}{phase}", total=steps)
            self._bars.refresh()  # a phase may be over before the bars are drawn again

    def step_done(self, phase: str, step: int) -> None:
        """Advance the phase's bar."""
        with self._lock:
            if phase in self._tasks:
                self._bars.update(self._tasks[phase], completed=step + 1)

    def phase_ended(self, phase: str) -> None:
        """Remove the phase's bar."""
        with self._lock:
            task = self._tasks.pop(phase, None)
            if task is not None:
                self._bars.remove_task(task)
            if not self._tasks:
                self._bars.stop()


def timing_path(bundle: Path, stem: str) -> Path:
    """The timing cache beside the bundle; ``stem`` names library, release and GPU architecture."""
    return bundle.parent / f"{bundle.name}.{stem}.timing"


def read_timing(path: Path) -> bytes:
    """The timing cache of an earlier build; empty if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): remove it") from error


def write_timing(path: Path, data: bytes) -> None:
    """Replace the timing cache; ``BundleError`` if it cannot be written."""
    try:
        write_atomically(path, data)
    except OSError as error:
        raise BundleError(
            f"{path} cannot be written ({error.strerror}): make its directory writable"
        ) from error


@dataclass(frozen=True)
class PlanSpec:
    """What a plan is for.

    Attributes:
        target: which library builds and runs it.
        input: the model's input; its batches are the optimization profile.
        output_name: the model's one output.
        capability: the GPU's compute capability, "8.9".
        hardware_compatible: whether it must also run on all later architectures.
    """

    target: Target
    input: InputSpec
    output_name: str
    capability: str
    hardware_compatible: bool


@dataclass(frozen=True)
class PlanBuild:
    """A plan and its timing cache (empty if the library measures nothing)."""

    plan: bytes
    timing: bytes


def build_plan(
    api: ModuleType, spec: PlanSpec, model_bytes: bytes, timing: bytes, progress: BuildProgress
) -> PlanBuild:
    """Build one plan.

    Args:
        api: the target's module.
        spec: what the plan is for.
        model_bytes: the ONNX graph, weights inside, in the precision it must run in.
        timing: the timing cache of an earlier build; empty if there is none.
        progress: receives the phases of the build.

    Raises:
        BundleError: the graph cannot be read or built, or not for that GPU.
    """
    captured = LogCapture()
    logger = make_logger(api, captured)
    builder: Any = api.Builder(logger)
    network: Any = builder.create_network(0)
    _parse(api, network, logger, model_bytes, captured)
    _check_tensors(api, network, spec)
    config: Any = builder.create_builder_config()
    config.add_optimization_profile(_profile(builder, spec.input))
    config.clear_flag(api.BuilderFlag.TF32)  # TF32 keeps only 10 bits of the mantissa
    _set_gpus(api, config, spec)
    cache = _with_timing(config, spec.target, timing)
    interrupt = Interrupt()
    monitor = make_monitor(api, progress, interrupt)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if interrupt.wanted:
        raise KeyboardInterrupt
    if plan is None:
        raise BundleError(
            f"{spec.target.name} {version_of(api)} cannot build the model ({captured.summary()}): "
            "export it in another precision or with other operators"
        )
    return PlanBuild(bytes(plan), b"" if cache is None else bytes(cache.serialize()))


def _parse(
    api: ModuleType,
    network: Any,  # noqa: ANN401  an untyped library
    logger: object,
    model_bytes: bytes,
    captured: LogCapture,
) -> None:
    parser = api.OnnxParser(network, logger)
    if parser.parse(model_bytes):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    named = [
        f"operator {error.node_operator()} (node {error.node_name() or 'without a name'}): "
        f"{error.desc()}"
        for error in errors
        if error.node_operator()
    ]
    described = [error.desc() for error in errors]
    reasons = "; ".join(named or described) or captured.summary()
    raise BundleError(
        f"the model cannot be read by {api.__name__} {version_of(api)}: {reasons}: export it with "
        "operators that the library has"
    )


def _check_tensors(
    api: ModuleType,
    network: Any,  # noqa: ANN401  an untyped library
    spec: PlanSpec,
) -> None:
    """Refuse a graph whose tensors are not those of the manifest."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    shape = (-1, spec.input.height_px, spec.input.width_px, RGB_CHANNELS)
    actual = [(tensor.name, tensor.dtype, tuple(tensor.shape)) for tensor in (*inputs, *outputs)]
    expected = [
        (spec.input.name, api.DataType.UINT8, shape),
        (spec.output_name, api.DataType.FLOAT, (-1,)),
    ]
    if actual != expected:
        raise BundleError(
            f"the model has the tensors {actual}, the manifest says {expected}: export the model "
            "and the manifest together"
        )


def _profile(builder: Any, spec: InputSpec) -> object:  # noqa: ANN401  an untyped library
    profile = builder.create_optimization_profile()
    least, best, most = (
        (batch, spec.height_px, spec.width_px, RGB_CHANNELS)
        for batch in (spec.batch_min, spec.batch_opt, spec.batch_max)
    )
    profile.set_shape(spec.name, least, best, most)
    return profile


def _set_gpus(api: ModuleType, config: Any, spec: PlanSpec) -> None:  # noqa: ANN401  untyped
    """Set the GPUs that the plan is for."""
    if spec.target.ahead_of_time:
        # Without one, TensorRT-RTX builds for Ampere and all later architectures.
        if not spec.hardware_compatible:
            config.num_compute_capabilities = 1
            config.set_compute_capability(architecture(api, spec.target, spec.capability), 0)
    elif spec.hardware_compatible:
        config.hardware_compatibility_level = api.HardwareCompatibilityLevel.AMPERE_PLUS


def architecture(api: ModuleType, target: Target, capability: str) -> object:
    """An ahead-of-time library's value for a compute capability; ``BundleError`` if it has none."""
    known: dict[str, object] = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in api.ComputeCapability.__members__.items()
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
    """Give the builder the timing cache of an earlier build; returns the cache that it fills."""
    if not target.times_tactics:
        return None
    cache = config.create_timing_cache(timing)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        _log.warning("timing_cache_unused", reason="damaged, or for another GPU or release")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache
