"""The report of ``verify --all-runtimes``: a bundle on every runtime of this machine.

In: a verified bundle. Out: a ``Report``, plain values. Errors: ``BundleError`` if nothing can be
compared; a problem of one runtime is part of the report.
"""

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from importlib.metadata import packages_distributions, version
from typing import Final

import numpy as np

from engines.bundle.golden import Golden, golden_logits, read_golden
from engines.bundle.manifest import BundleError, EngineFile, Manifest
from engines.bundle.verify import Verified
from engines.parity.evaluation import (
    AUC_LOSS_MAX,
    DecisionChange,
    LabelledPicture,
    RuntimeEvaluation,
    decisions_changed,
    evaluate,
)
from engines.parity.speed import Speed, measure_speed
from engines.runtime import Runtime, RuntimeFailure, open_candidate
from engines.runtime.machine import Machine, processor_name
from engines.runtime.selection import (
    AUTO,
    KINDS,
    Candidate,
    OtherMachineError,
    Selection,
    SkippedRuntime,
    no_runtime_error,
    one_per_file,
    select_runtimes,
)

SCHEMA_VERSION: Final = 1
REPORT_FILE: Final = "verify-report.json"  # within a bundle
NOT_EXPORTED: Final = "the bundle was not exported for it"
_REFERENCE_RUNTIME: Final = "onnxruntime-cpu"
_SHOWN_FEATURES: Final = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
    "asimd", "asimddp", "i8mm", "bf16",
)  # fmt: skip


@dataclass(frozen=True)
class ReportSubject:
    """What was measured, where, and how.

    Attributes:
        name: of the bundle.
        version: of the bundle.
        manifest_sha256: its identity when measured; adding the report to it changes the identity.
        measured_at: in UTC, ISO 8601.
        system: operating system and C library.
        processor: the processor's name.
        features: its features that decide speed and precision.
        gpu: the first GPU's compute capability.
        packages: the runtimes' versions.
        threads: of one inference.
        auc_loss_max: how much AUC another precision may lose.
    """

    name: str
    version: str
    manifest_sha256: str
    measured_at: str
    system: str
    processor: str
    features: tuple[str, ...]
    gpu: str | None
    packages: dict[str, str]
    threads: int
    auc_loss_max: float


@dataclass(frozen=True)
class GoldenAgreement:
    """On the golden outputs: the largest difference of a logit, and the decisions that change."""

    max_difference: float
    tolerance: float
    changed: tuple[DecisionChange, ...]


@dataclass(frozen=True)
class Variant:
    """One file on one runtime in one precision. None marks what a problem prevented."""

    runtime: str
    precision: str
    path: str
    engine_sha256: str | None = None
    golden: GoldenAgreement | None = None
    speed: tuple[Speed, ...] = ()
    evaluated: RuntimeEvaluation | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """How many pictures of each class the evaluation read; ``refused`` could not be read."""

    real: int
    fake: int
    refused: int


@dataclass(frozen=True)
class Report:
    """The whole report."""

    schema_version: int
    subject: ReportSubject
    variants: tuple[Variant, ...]
    skipped: tuple[SkippedRuntime, ...]
    pictures: Pictures | None

    @property
    def in_order(self) -> bool:
        """Whether no variant has a problem."""
        return not any(variant.problems for variant in self.variants)

    def as_json(self) -> dict[str, object]:
        """What ``json.dumps`` takes."""
        content = asdict(self)
        del content["skipped"]
        return {
            "ok": self.in_order,
            **content,
            "passed_over": tuple(str(runtime) for runtime in self.skipped),
        }


@dataclass(frozen=True)
class ReportOptions:
    """What to measure.

    Attributes:
        threads: of one inference.
        repetitions: timings whose median is reported; 0 for no timing.
        repetition_s: the duration of each.
        pictures: labelled pictures; none for no evaluation.
        auc_loss_max: how much AUC another precision may lose against the reference.
    """

    threads: int = 1
    repetitions: int = 5
    repetition_s: float = 0.5
    pictures: Sequence[LabelledPicture] = ()
    auc_loss_max: float = AUC_LOSS_MAX


def verify_runtimes(
    verified: Verified, machine: Machine, options: ReportOptions, now: datetime
) -> Report:
    """Open, compare and time every runtime and engine file that this machine can run."""
    manifest, golden = verified.manifest, read_golden(verified.golden_bytes)
    selection = select_runtimes(AUTO, manifest, machine)
    other_machines: list[SkippedRuntime] = []
    with ExitStack() as stack:
        opened = []
        for candidate in one_per_file(selection, manifest):
            try:
                opened.append(_open(candidate, verified, options.threads, stack))
            except OtherMachineError as error:
                name = _file_name(candidate.runtime, candidate.paths[0], manifest)
                other_machines.append(SkippedRuntime(name, str(error)))
        skipped = (*_skipped(selection, manifest), *other_machines, *_not_exported(manifest))
        if not opened:
            raise no_runtime_error(AUTO, AUTO, list(skipped))
        checked = [
            (runtime, _check(runtime, variant, manifest, golden, options) if runtime else variant)
            for runtime, variant in opened
        ]
        variants, pictures = _with_evaluation(checked, manifest, options)
    subject = _subject(verified, machine, options, now)
    return Report(SCHEMA_VERSION, subject, variants, skipped, pictures)


def _subject(
    verified: Verified, machine: Machine, options: ReportOptions, now: datetime
) -> ReportSubject:
    distributions = _distributions()
    return ReportSubject(
        name=verified.manifest.name,
        version=verified.manifest.version,
        manifest_sha256=verified.sha256,
        measured_at=now.isoformat(timespec="seconds"),
        system=platform.platform(),
        processor=processor_name(),
        features=tuple(name for name in _SHOWN_FEATURES if name in machine.processor),
        gpu=machine.gpu,
        packages={
            name: version(distributions[name][0])
            for name in sorted(machine.packages)
            if name in distributions  # not for a package on the path that was never installed
        },
        threads=options.threads,
        auc_loss_max=options.auc_loss_max,
    )


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    """The installed distributions of each importable package; reading them takes 0.2 s."""
    return packages_distributions()


def _skipped(selection: Selection, manifest: Manifest) -> Iterator[SkippedRuntime]:
    """What was not opened; for a GPU runtime, each of its plans."""
    opened = {candidate.label for candidate in selection.possible}
    for skipped in selection.skipped:
        plans = [
            _file_name(skipped.what, engine.path, manifest)
            for engine in manifest.engines
            if engine.runtime == skipped.what and engine.compute_capability is not None
        ]
        if skipped.what not in opened:
            yield from (SkippedRuntime(name, skipped.why) for name in plans or (skipped.what,))


def _file_name(runtime: str, path: str, manifest: Manifest) -> str:
    """``tensorrt fp16 plan for sm_90 (plans/a.plan)``."""
    engine = next(engine for engine in manifest.engines if engine.path == path)
    return f"{runtime} {engine.precision}{_plan_for(engine)} ({path})"


def _plan_for(engine: EngineFile) -> str:
    if engine.compute_capability is None:
        return ""
    later = " or later" if engine.hardware_compatible else ""
    return f" plan for sm_{engine.compute_capability.replace('.', '')}{later}"


def _not_exported(manifest: Manifest) -> list[SkippedRuntime]:
    return [
        SkippedRuntime(kind.name, NOT_EXPORTED)
        for kind in KINDS
        if kind.name not in manifest.runtimes
    ]


def _open(
    candidate: Candidate, verified: Verified, threads: int, stack: ExitStack
) -> tuple[Runtime | None, Variant]:
    """Open it; ``OtherMachineError`` for a plan of another machine, which is not a problem."""
    manifest, (path,) = verified.manifest, candidate.paths
    variant = Variant(candidate.runtime, str(candidate.precision), path)
    try:
        runtime = open_candidate(candidate, manifest, verified.files, threads)
    except OtherMachineError:
        raise
    except BundleError as error:
        return None, replace(variant, problems=(str(error),))
    stack.callback(runtime.close)
    return runtime, replace(variant, engine_sha256=runtime.engine_sha256)


def _check(
    runtime: Runtime, variant: Variant, manifest: Manifest, golden: Golden, options: ReportOptions
) -> Variant:
    try:
        agreement = golden_agreement(runtime, manifest, golden)
        speed = _timed(runtime, manifest, options)
    except (BundleError, RuntimeFailure) as error:
        return replace(variant, problems=(str(error),))
    problems: tuple[str, ...] = ()
    if not agreement.max_difference <= agreement.tolerance:
        problem = (
            f"a golden logit differs by {agreement.max_difference:.3g}, over the tolerance of "
            f"{variant.precision}, {agreement.tolerance:.3g}: use another runtime, or export again"
        )
        problems = (problem,)
    return replace(variant, golden=agreement, speed=speed, problems=problems)


def _timed(runtime: Runtime, manifest: Manifest, options: ReportOptions) -> tuple[Speed, ...]:
    if options.repetitions == 0:
        return ()
    return measure_speed(
        runtime,
        manifest.input,
        time.perf_counter,
        repetitions=options.repetitions,
        repetition_s=options.repetition_s,
    )


def golden_agreement(runtime: Runtime, manifest: Manifest, golden: Golden) -> GoldenAgreement:
    """Compare with the golden outputs; ``BundleError`` if they cannot be run."""
    logits = golden_logits(runtime, manifest, golden)
    return GoldenAgreement(
        max(logits.differences(golden).values()),
        manifest.tolerances[runtime.precision],
        decisions_changed(
            manifest,
            np.concatenate([logits.crop_K, logits.file_M]).tolist(),
            np.concatenate([golden.logit_K, golden.encoded_logit_M]).tolist(),
        ),
    )


def _with_evaluation(
    checked: list[tuple[Runtime | None, Variant]], manifest: Manifest, options: ReportOptions
) -> tuple[tuple[Variant, ...], Pictures | None]:
    if not options.pictures:
        return tuple(variant for _, variant in checked), None
    # A variant that failed on the golden outputs needs no evaluation.
    sound = [(runtime, variant) for runtime, variant in checked if runtime and variant.golden]
    reference = next((pair for pair in sound if _is_reference(pair[1], manifest)), None)
    if reference is None:
        raise BundleError(
            f"there is nothing to compare with: {manifest.model_file} does not run on "
            f"{_REFERENCE_RUNTIME} here; export the bundle for it, or omit the evaluation"
        )
    in_order = [reference, *(pair for pair in sound if pair is not reference)]
    evaluation = evaluate([runtime for runtime, _ in in_order], manifest, options.pictures)
    evaluated = {
        id(variant): _with_result(variant, result, manifest, options)
        for (_, variant), result in zip(in_order, evaluation.results, strict=True)
    }
    variants = tuple(evaluated.get(id(variant), variant) for _, variant in checked)
    return variants, Pictures(evaluation.real, evaluation.fake, evaluation.refused)


def _is_reference(variant: Variant, manifest: Manifest) -> bool:
    return variant.runtime == _REFERENCE_RUNTIME and variant.path == manifest.model_file


def _with_result(
    variant: Variant, result: RuntimeEvaluation, manifest: Manifest, options: ReportOptions
) -> Variant:
    problems, loss = variant.problems, -result.auc_difference
    if variant.precision != manifest.precision and loss > options.auc_loss_max:
        problem = (
            f"{variant.precision} loses {loss:.4f} of AUC, over {options.auc_loss_max:.4f}: leave "
            "it out of the bundle, or make it another way"
        )
        problems = (*problems, problem)
    return replace(variant, evaluated=result, problems=problems)
