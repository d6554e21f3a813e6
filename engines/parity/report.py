"""A bundle on every runtime that this machine has: what ``engines verify --all-runtimes`` finds.

In: a verified bundle. Out: a ``Report``, plain values. Errors: ``BundleError``, where nothing can
be compared; what is wrong with one runtime stands in the report.
"""

import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.metadata import packages_distributions, version
from typing import Final

import numpy as np

from engines.bundle.golden import Golden, golden_logits, read_golden
from engines.bundle.manifest import BundleError, EngineFile, Manifest
from engines.bundle.verify import Verified
from engines.parity.evaluation import (
    AUC_LOSS_MAX,
    Changed,
    Evaluated,
    Labelled,
    decisions_changed,
    evaluate,
)
from engines.parity.speed import Speed, measure_speed
from engines.runtime import Runtime, RuntimeFailure, open_candidate
from engines.runtime.executor import OtherMachineError
from engines.runtime.machine import Machine, processor_name
from engines.runtime.selection import (
    AUTO,
    KINDS,
    Candidate,
    PassedOver,
    Weighed,
    apart,
    nothing_left,
    weigh,
)

_SHOWN_FEATURES: Final = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
    "asimd", "asimddp", "i8mm", "bf16",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """What was measured, where, and how.

    Attributes:
        name: of the bundle.
        version: of the bundle.
        manifest_sha256: its identity when it was measured; adding the report to it gives another.
        measured_at: in UTC, ISO 8601.
        system: operating system and C library.
        processor: the processor's name.
        features: those of it that decide how fast and in what a graph is computed.
        gpu: the first GPU's compute capability.
        packages: the runtimes' versions.
        threads: of one inference.
        auc_loss_max: how much less AUC another precision was allowed.
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


def subject_of(
    verified: Verified, machine: Machine, threads: int, auc_loss_max: float, now: datetime
) -> Subject:
    """The bundle on this machine."""
    distributions = packages_distributions()
    return Subject(
        name=verified.manifest.name,
        version=verified.manifest.version,
        manifest_sha256=verified.sha256,
        measured_at=now.isoformat(timespec="seconds"),
        system=platform.platform(),
        processor=processor_name(),
        features=tuple(one for one in _SHOWN_FEATURES if one in machine.processor),
        gpu=machine.gpu,
        packages={
            name: version(distributions[name][0])
            for name in sorted(machine.packages)
            if name in distributions  # on the path without having been installed
        },
        threads=threads,
        auc_loss_max=auc_loss_max,
    )


SCHEMA_VERSION: Final = 1
REPORT_FILE: Final = "verify-report.json"  # within a bundle
NOT_EXPORTED: Final = "the bundle was not exported for it"
_REFERENCE_RUNTIME: Final = "onnxruntime-cpu"


@dataclass(frozen=True)
class Agreement:
    """On the golden outputs: the largest difference of a logit, and the decisions that change."""

    max_difference: float
    tolerance: float
    changed: tuple[Changed, ...]


@dataclass(frozen=True)
class Variant:
    """One file on one runtime in one precision. What was not come to, because of a problem, is None."""

    runtime: str
    precision: str
    path: str
    engine_sha256: str | None = None
    golden: Agreement | None = None
    speed: tuple[Speed, ...] = ()
    evaluated: Evaluated | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """How many pictures of each kind the evaluation read; ``refused`` could not be."""

    real: int
    fake: int
    refused: int


@dataclass(frozen=True)
class Report:
    """The whole report; ``json.dumps`` takes ``asdict`` of it."""

    schema_version: int
    subject: Subject
    variants: tuple[Variant, ...]
    passed_over: tuple[PassedOver, ...]
    pictures: Pictures | None

    @property
    def in_order(self) -> bool:
        """Whether no variant has a problem."""
        return not any(one.problems for one in self.variants)

    def as_json(self) -> dict[str, object]:
        """For ``json.dumps``."""
        passed = tuple(str(one) for one in self.passed_over)
        return {"ok": self.in_order, **asdict(self), "passed_over": passed}


@dataclass(frozen=True)
class How:
    """How much to measure.

    Attributes:
        threads: of one inference.
        repetitions: timings whose median is reported; 0 for no timing.
        repetition_s: how long each goes on.
        pictures: labelled ones; none for no evaluation.
        auc_loss_max: how much less AUC than the reference another precision may have.
    """

    threads: int = 1
    repetitions: int = 5
    repetition_s: float = 0.5
    pictures: Sequence[Labelled] = ()
    auc_loss_max: float = AUC_LOSS_MAX


def verify_runtimes(verified: Verified, machine: Machine, how: How, now: datetime) -> Report:
    """Open, compare and time every runtime and engine file that this machine has."""
    manifest, golden = verified.manifest, read_golden(verified.golden_bytes)
    weighed = weigh(AUTO, manifest, machine)
    elsewhere: list[PassedOver] = []
    with ExitStack() as opened:
        tried = []
        for one in apart(weighed, manifest):
            try:
                tried.append(_open(one, verified, how.threads, opened))
            except OtherMachineError as error:
                elsewhere.append(
                    PassedOver(_named(one.runtime, one.paths[0], manifest), str(error))
                )
        passed = (*_passed_over(weighed, manifest), *elsewhere, *_not_listed(manifest))
        if not tried:
            raise nothing_left(AUTO, AUTO, list(passed))
        checked = [
            (runtime, _check(runtime, variant, manifest, golden, how) if runtime else variant)
            for runtime, variant in tried
        ]
        variants, pictures = _with_evaluation(checked, manifest, how)
    subject = subject_of(verified, machine, how.threads, how.auc_loss_max, now)
    return Report(SCHEMA_VERSION, subject, variants, passed, pictures)


def _passed_over(weighed: Weighed, manifest: Manifest) -> list[PassedOver]:
    """What was not even opened; where that is a runtime for GPUs, each of its plans."""
    run = {one.label for one in weighed.possible}
    found = []
    for one in weighed.passed_over:
        plans = [
            _named(one.what, engine.path, manifest)
            for engine in manifest.engines
            if engine.runtime == one.what and engine.compute_capability is not None
        ]
        if one.what not in run:
            found += [PassedOver(what, one.why) for what in plans or (one.what,)]
    return found


def _named(runtime: str, path: str, manifest: Manifest) -> str:
    """A file for people: ``tensorrt fp16 plan for sm_90 (plans/a.plan)``."""
    found = {engine.path: engine for engine in manifest.engines}[path]
    return f"{runtime} {found.precision}{_plan_for(found)} ({path})"


def _plan_for(engine: EngineFile) -> str:
    if engine.compute_capability is None:
        return ""
    later = " or later" if engine.hardware_compatible else ""
    return f" plan for sm_{engine.compute_capability.replace('.', '')}{later}"


def _not_listed(manifest: Manifest) -> list[PassedOver]:
    return [
        PassedOver(one.name, NOT_EXPORTED) for one in KINDS if one.name not in manifest.runtimes
    ]


def _open(
    candidate: Candidate, verified: Verified, threads: int, opened: ExitStack
) -> tuple[Runtime | None, Variant]:
    """Open it; raises ``OtherMachineError`` for a plan of another machine, which is no problem."""
    manifest, (path,) = verified.manifest, candidate.paths
    variant = Variant(candidate.runtime, str(candidate.precision), path)
    try:
        runtime = open_candidate(candidate, manifest, verified.files, threads)
    except OtherMachineError:
        raise
    except BundleError as error:
        return None, replace(variant, problems=(str(error),))
    opened.callback(runtime.close)
    return runtime, replace(variant, engine_sha256=runtime.engine_sha256)


def _check(
    runtime: Runtime, variant: Variant, manifest: Manifest, golden: Golden, how: How
) -> Variant:
    try:
        agreement = agree(runtime, manifest, golden)
        speed = _timed(runtime, manifest, how)
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


def _timed(runtime: Runtime, manifest: Manifest, how: How) -> tuple[Speed, ...]:
    if how.repetitions == 0:
        return ()
    return measure_speed(
        runtime, manifest.input, time.perf_counter,
        repetitions=how.repetitions, repetition_s=how.repetition_s,
    )  # fmt: skip


def agree(runtime: Runtime, manifest: Manifest, golden: Golden) -> Agreement:
    """Compare with the golden outputs; raises ``BundleError`` where they cannot be run."""
    found = golden_logits(runtime, manifest, golden)
    return Agreement(
        max(found.differences(golden).values()),
        manifest.tolerances[runtime.precision],
        decisions_changed(
            manifest,
            np.concatenate([found.crop_K, found.file_M]).tolist(),
            np.concatenate([golden.logit_K, golden.encoded_logit_M]).tolist(),
        ),
    )


def _with_evaluation(
    checked: list[tuple[Runtime | None, Variant]], manifest: Manifest, how: How
) -> tuple[tuple[Variant, ...], Pictures | None]:
    if not how.pictures:
        return tuple(variant for _, variant in checked), None
    # What failed on the golden outputs has shown enough.
    sound = [(runtime, one) for runtime, one in checked if runtime and one.golden]
    reference = next((pair for pair in sound if _is_reference(pair[1], manifest)), None)
    if reference is None:
        raise BundleError(
            f"there is nothing to compare with: {manifest.model_file} does not run on "
            f"{_REFERENCE_RUNTIME} here; export the bundle for it, or leave the evaluation out"
        )
    in_order = [reference, *(pair for pair in sound if pair is not reference)]
    evaluation = evaluate([runtime for runtime, _ in in_order], manifest, how.pictures)
    results = {
        id(variant): _judged(variant, result, manifest, how)
        for (_, variant), result in zip(in_order, evaluation.results, strict=True)
    }
    variants = tuple(results.get(id(variant), variant) for _, variant in checked)
    return variants, Pictures(evaluation.real, evaluation.fake, evaluation.refused)


def _is_reference(variant: Variant, manifest: Manifest) -> bool:
    return variant.runtime == _REFERENCE_RUNTIME and variant.path == manifest.model_file


def _judged(variant: Variant, result: Evaluated, manifest: Manifest, how: How) -> Variant:
    problems = variant.problems
    if variant.precision != manifest.precision and -result.auc_difference > how.auc_loss_max:
        problem = (
            f"{variant.precision} loses {-result.auc_difference:.4f} of AUC, over "
            f"{how.auc_loss_max:.4f}: leave it out of the bundle, or make it another way"
        )
        problems = (*problems, problem)
    return replace(variant, evaluated=result, problems=problems)
