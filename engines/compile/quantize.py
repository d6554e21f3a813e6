"""A bundle that also runs in int8 or bf16 on CPUs, if it is as accurate as in fp32.

In: an fp32 bundle, pictures to calibrate on, other labelled pictures to compare on. Out: a new,
unsigned bundle directory, and what each precision costs. Errors: ``BundleError``; then nothing is
left behind.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from engines.bundle.golden import (
    Golden,
    check_golden,
    golden_logits,
    measured_tolerance,
    read_golden,
)
from engines.bundle.manifest import BundleError, EngineFile, Manifest, write_manifest
from engines.bundle.verify import Verified, read_bundle
from engines.compile.package import copied_bundle, refuse_changed
from engines.parity.evaluation import (
    LabelledPicture,
    ParityEvaluation,
    RuntimeEvaluation,
    changes_by_set,
    check_auc_loss,
    evaluate,
)
from engines.parity.report import REPORT_FILE
from engines.preprocess import ImageError, Limits, prepare
from engines.runtime import Runtime, open_candidate
from engines.runtime.machine import BF16_FEATURES, Machine, this_machine
from engines.runtime.selection import KINDS, Candidate

LowerPrecision = Literal["int8", "bf16"]

REFERENCE: Final = "onnxruntime-cpu"
# Each runtime has a file of its own, because each entry in a manifest's engines names one runtime.
INT8_FILES: Final = {REFERENCE: "model.int8.onnx", "openvino-cpu": "model.int8.openvino.onnx"}
# bf16 has no file: the runtime computes the fp32 model in bf16.
BF16_RUNTIME: Final = "openvino-cpu"
_CARD: Final = "MODEL_CARD.md"


@dataclass(frozen=True)
class QuantizeRequest:
    """What to add to a bundle.

    Attributes:
        precisions: int8, bf16 or both.
        runtimes: which runtimes get the int8 graph; keys of ``INT8_FILES``.
        calibration: pictures whose crops set the ranges of int8.
        evaluation: labelled pictures; those used for calibration are left out.
        auc_loss_max: how much AUC a precision may lose against fp32.
        version: of the new bundle; None for the old one's with ``+int8``, ``+bf16`` or both.
    """

    precisions: tuple[LowerPrecision, ...]
    runtimes: tuple[str, ...]
    calibration: Sequence[Path]
    evaluation: Sequence[LabelledPicture]
    auc_loss_max: float
    version: str | None = None


@dataclass(frozen=True)
class PrecisionResult:
    """A candidate compared with fp32.

    Attributes:
        candidate: the runtime, its file and its precision.
        evaluation: on the pictures; differences are from fp32 on ONNX Runtime.
        golden_max_difference: the largest difference of a logit from its golden output.
    """

    candidate: Candidate
    evaluation: RuntimeEvaluation
    golden_max_difference: float

    @property
    def label(self) -> str:
        """``int8 on onnxruntime-cpu``."""
        return f"{self.candidate.precision} on {self.candidate.runtime}"


@dataclass(frozen=True)
class PrecisionComparison:
    """All candidates on the same pictures."""

    evaluation: ParityEvaluation
    results: tuple[PrecisionResult, ...]

    @property
    def reference_auc(self) -> float:
        """The AUC in fp32."""
        return self.evaluation.results[0].auc


@dataclass(frozen=True)
class QuantizedBundle:
    """The new bundle's manifest, and what its precisions cost."""

    manifest: Manifest
    calibration_crops: int
    comparison: PrecisionComparison


@dataclass(frozen=True)
class _Calibration:
    crops: Sequence[NDArray[np.uint8]]
    digests: frozenset[str]


def quantize_bundle(directory: Path, out: Path, request: QuantizeRequest) -> QuantizedBundle:
    """Write the bundle ``out``, made from the bundle ``directory``.

    Raises:
        BundleError: the bundle is not in fp32 or has that precision already; ``out`` is not empty;
            a runtime or a processor feature is missing; or a precision loses too much AUC.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out} is not empty: name a new --out directory")
    machine = this_machine()
    verified = read_bundle(directory, machine)
    manifest = verified.manifest
    tried = candidates(request, manifest, machine)
    calibration = _Calibration((), frozenset())
    graphs: dict[str, bytes] = {}
    if "int8" in request.precisions:
        calibration = _calibrate(request.calibration, manifest)
        model = verified.files[manifest.model_file]
        graph = _int8_graph(model, manifest.input.name, calibration.crops)
        graphs = {INT8_FILES[runtime]: graph for runtime in request.runtimes}
    unseen = [
        picture
        for picture in request.evaluation
        if _digest(picture.path) not in calibration.digests
    ]
    golden = read_golden(verified.golden_bytes)
    files = {**verified.files, **graphs}
    comparison = compare_precisions(tried, manifest, files, golden, unseen)
    for result in comparison.results:
        check_auc_loss(result.label, comparison.evaluation, result.evaluation, request.auc_loss_max)
    planned = _new_manifest(manifest, request, comparison.results)
    bundle = QuantizedBundle(planned, len(calibration.crops), comparison)
    return _write(out, bundle, graphs, verified)


def candidates(request: QuantizeRequest, manifest: Manifest, machine: Machine) -> list[Candidate]:
    """What to try, int8 first; ``BundleError`` if it cannot be made or compared here."""
    if manifest.precision != "fp32":
        raise BundleError(
            f"the model is in {manifest.precision}: int8 and bf16 are made of an fp32 one"
        )
    refuse_machine(request.precisions, request.runtimes, machine)
    tried = []
    if "int8" in request.precisions:
        _refuse_second_int8(request, manifest)
        tried += [
            Candidate(runtime, (INT8_FILES[runtime],), "int8", on_gpu=False)
            for runtime in request.runtimes
        ]
    if "bf16" in request.precisions:
        # Even if the manifest has a tolerance for bf16: the exporter measured no AUC.
        tried.append(Candidate(BF16_RUNTIME, (manifest.model_file,), "bf16", on_gpu=False))
    if not tried:
        raise BundleError("no precision is named: name int8, bf16 or both")
    return tried


def refuse_machine(
    precisions: Collection[str], runtimes: Collection[str], machine: Machine
) -> None:
    """Raise ``BundleError`` if this machine's processor computes the precisions differently."""
    if "int8" in precisions:
        unknown = [runtime for runtime in runtimes if runtime not in INT8_FILES]
        if unknown or not runtimes:
            raise BundleError(
                f"no int8 graph is made for {unknown}: choose of {', '.join(INT8_FILES)}"
            )
        for kind in KINDS:
            problem = kind.int8_problem(machine) if kind.name in runtimes else None
            if problem is not None:
                raise BundleError(f"int8 for {kind.name} cannot be judged here: {problem}")
    if "bf16" in precisions and not machine.processor & BF16_FEATURES:
        raise BundleError(
            "bf16 cannot be judged here: the processor has none of "
            f"{', '.join(sorted(BF16_FEATURES))}"
        )


def _refuse_second_int8(request: QuantizeRequest, manifest: Manifest) -> None:
    for engine in manifest.engines:
        if engine.precision == "int8" and engine.runtime in request.runtimes:
            raise BundleError(
                f"the bundle has {engine.path} in int8 for {engine.runtime}: start from the bundle "
                "that it was made of"
            )


def _int8_graph(model: bytes, input_name: str, crops: Sequence[NDArray[np.uint8]]) -> bytes:
    try:
        # Imported here: bf16 needs none of its packages.
        from engines.compile.int8 import int8_graph  # noqa: PLC0415
    except ImportError as error:
        raise BundleError(
            f"int8 needs a package that is not installed ({error}): install the packages of the "
            "extra 'trainer' (`make dev` does)"
        ) from error
    return int8_graph(model, input_name, crops)


def _calibrate(paths: Sequence[Path], manifest: Manifest) -> _Calibration:
    crops: list[NDArray[np.uint8]] = []
    digests = set()
    for path in paths:
        data = path.read_bytes()
        try:
            crops.extend(prepare(data, manifest.preprocess, Limits()).image_NHWC)
        except ImageError:
            continue  # a text file beside the pictures, for instance
        digests.add(hashlib.sha256(data).hexdigest())
    if not crops:
        raise BundleError(
            "no calibration picture could be read: int8 needs --calibration DIR with images"
        )
    return _Calibration(crops, frozenset(digests))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compare_precisions(
    candidates: Sequence[Candidate],
    manifest: Manifest,
    files: Mapping[str, bytes],
    golden: Golden,
    pictures: Sequence[LabelledPicture],
) -> PrecisionComparison:
    """Run the pictures and the golden inputs on the fp32 model and on every candidate."""
    reference = Candidate(REFERENCE, (manifest.model_file,), "fp32", on_gpu=False)
    with ExitStack() as stack:
        runtimes: list[Runtime] = []
        for candidate in (reference, *candidates):
            runtimes.append(open_candidate(candidate, manifest, files, 1))
            stack.callback(runtimes[-1].close)
        evaluation = evaluate(runtimes, manifest, pictures)
        differences = [
            max(golden_logits(runtime, manifest, golden).differences(golden).values())
            for runtime in runtimes[1:]
        ]
    results = map(PrecisionResult, candidates, evaluation.results[1:], differences)
    return PrecisionComparison(evaluation, tuple(results))


def _new_manifest(
    manifest: Manifest, request: QuantizeRequest, results: Sequence[PrecisionResult]
) -> Manifest:
    """The manifest of the new bundle; its lineage records what each precision costs."""
    tried = [result.candidate for result in results]
    engines = tuple(
        EngineFile(path=INT8_FILES[candidate.runtime], runtime=candidate.runtime, precision="int8")
        for candidate in tried
        if candidate.precision == "int8"
    )
    runtimes = dict.fromkeys([*manifest.runtimes, *(candidate.runtime for candidate in tried)])
    suffix = ".".join(dict.fromkeys(str(candidate.precision) for candidate in tried))
    lineage = manifest.lineage
    costs = {
        f"{result.candidate.precision}.auc_difference.{result.candidate.runtime}": (
            result.evaluation.auc_difference
        )
        for result in results
    }
    return manifest.model_copy(
        update={
            "version": request.version or f"{manifest.version.partition('+')[0]}+{suffix}",
            "engines": (*manifest.engines, *engines),
            "runtimes": tuple(runtimes),
            "tolerances": {**manifest.tolerances, **_tolerances(results)},
            "lineage": lineage.model_copy(update={"config": {**lineage.config, **costs}}),
        }
    )


def _tolerances(results: Sequence[PrecisionResult]) -> dict[str, float]:
    """By precision, from the runtime that differs most from the golden outputs."""
    largest: dict[str, float] = {}
    for result in results:
        precision = str(result.candidate.precision)
        largest[precision] = max(largest.get(precision, 0.0), result.golden_max_difference)
    return {precision: measured_tolerance(most) for precision, most in largest.items()}


def _write(
    out: Path, bundle: QuantizedBundle, graphs: Mapping[str, bytes], verified: Verified
) -> QuantizedBundle:
    """Write the new bundle; it appears complete and checked, or not at all."""
    before = verified.manifest
    with copied_bundle(verified.directory, before, out, (REPORT_FILE,)) as copy:
        for path, data in graphs.items():
            (copy / path).write_bytes(data)
        with (copy / _CARD).open("a", encoding="utf-8") as card:
            card.write(_card_section(bundle))
        written = write_manifest(copy, bundle.manifest)
        refuse_changed(verified.directory, before, written, {_CARD, REPORT_FILE})
        _load(copy, written, [result.candidate for result in bundle.comparison.results])
        if out.exists():
            out.rmdir()
    return QuantizedBundle(written, bundle.calibration_crops, bundle.comparison)


def _load(directory: Path, manifest: Manifest, tried: Sequence[Candidate]) -> None:
    """Open every candidate as it was written, and compare it with the golden outputs."""
    verified = read_bundle(directory, this_machine())
    golden = read_golden(verified.golden_bytes)
    for candidate in tried:
        runtime = open_candidate(candidate, manifest, verified.files, 1)
        try:
            check_golden(runtime, manifest, golden)
        finally:
            runtime.close()


def _card_section(bundle: QuantizedBundle) -> str:
    """The section of the model card about the new precisions."""
    comparison = bundle.comparison
    evaluation = comparison.evaluation
    precisions = dict.fromkeys(str(result.candidate.precision) for result in comparison.results)
    lines = [
        f"- {result.label}: AUC {result.evaluation.auc:.4f}, "
        f"{result.evaluation.auc_difference:+.4f} from fp32; decisions that change, at review and "
        f"at block: {'; '.join(changes_by_set(result.evaluation.changed))}"
        for result in comparison.results
    ]
    ranges = (
        f" The int8 graph is static, by channel; its ranges are from {bundle.calibration_crops} crops."
        if "int8" in precisions
        else ""
    )
    return (
        f"\n## {' and '.join(precisions)}\n\n"
        f"Measured by `python -m engines quantize` against fp32, on {evaluation.real} real and "
        f"{evaluation.fake} fake pictures that were not used for calibration.{ranges}\n\n"
        + "\n".join(lines)
        + "\n\nThe figures above are those of the fp32 model.\n"
    )
