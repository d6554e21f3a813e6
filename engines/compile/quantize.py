"""A bundle that also runs in int8 or bf16 on CPUs, if that is as good as fp32.

In: an fp32 bundle, pictures to calibrate on, other labelled ones to judge by. Out: a new, unsigned
bundle directory, and what each precision costs. Errors: ``BundleError``; then nothing is left behind.
"""

import hashlib
import shutil
import tempfile
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
from engines.bundle.manifest import (
    MANIFEST_FILE,
    SIGNATURES_FILE,
    BundleError,
    EngineFile,
    Manifest,
    write_manifest,
)
from engines.bundle.verify import Verified, read_bundle
from engines.parity.evaluation import Evaluated, Evaluation, Labelled, by_set, evaluate, refuse_loss
from engines.parity.report import REPORT_FILE
from engines.preprocess import ImageError, Limits, prepare
from engines.runtime import Runtime, open_candidate
from engines.runtime.machine import BF16_FEATURES, Machine, this_machine
from engines.runtime.selection import KINDS, Candidate

Lower = Literal["int8", "bf16"]

REFERENCE: Final = "onnxruntime-cpu"
# Every runtime has a file of its own, as a manifest's engines want it.
INT8_FILES: Final = {REFERENCE: "model.int8.onnx", "openvino-cpu": "model.int8.openvino.onnx"}
# bf16 has no file: the runtime computes the model in it.
BF16_RUNTIME: Final = "openvino-cpu"


@dataclass(frozen=True)
class Asked:
    """What is to be made.

    Attributes:
        precisions: any of int8 and bf16.
        runtimes: which get the int8 graph; keys of ``INT8_FILES``.
        calibration: pictures whose crops set the ranges of int8.
        evaluation: labelled pictures; those that calibration used are left out.
        auc_loss_max: a precision may have this much less AUC than fp32.
        version: of the new bundle; None for the old one's with ``+int8``, ``+bf16`` or both.
    """

    precisions: tuple[Lower, ...]
    runtimes: tuple[str, ...]
    calibration: Sequence[Path]
    evaluation: Sequence[Labelled]
    auc_loss_max: float
    version: str | None = None


def candidates(asked: Asked, manifest: Manifest, machine: Machine) -> list[Candidate]:
    """What is to be tried, int8 first."""
    if manifest.precision != "fp32":
        raise BundleError(
            f"the model is in {manifest.precision}: int8 and bf16 are made of an fp32 one"
        )
    refuse_machine(asked.precisions, asked.runtimes, machine)
    found = []
    if "int8" in asked.precisions:
        _refuse_second_int8(asked, manifest)
        found += [_candidate(one, INT8_FILES[one], "int8") for one in asked.runtimes]
    if "bf16" in asked.precisions:
        # Even where the exporter measured a tolerance: it judged nothing by pictures.
        found.append(_candidate(BF16_RUNTIME, manifest.model_file, "bf16"))
    if not found:
        raise BundleError("no precision is asked for: name int8, bf16 or both")
    return found


def _candidate(runtime: str, path: str, precision: Lower) -> Candidate:
    return Candidate(runtime, (path,), precision, on_gpu=False)


def refuse_machine(
    precisions: Collection[str], runtimes: Collection[str], machine: Machine
) -> None:
    """Refuses what this machine could not judge of any bundle: its processor computes otherwise."""
    if "int8" in precisions:
        unknown = [one for one in runtimes if one not in INT8_FILES]
        if unknown or not runtimes:
            raise BundleError(
                f"no int8 graph is made for {unknown}: choose of {', '.join(INT8_FILES)}"
            )
        for kind in KINDS:
            why = kind.int8_problem(machine) if kind.name in runtimes else None
            if why is not None:
                raise BundleError(f"int8 for {kind.name} cannot be judged here: {why}")
    if "bf16" in precisions and not machine.processor & BF16_FEATURES:
        raise BundleError(
            "bf16 cannot be judged here: the processor has none of "
            f"{', '.join(sorted(BF16_FEATURES))}"
        )


def _refuse_second_int8(asked: Asked, manifest: Manifest) -> None:
    for one in manifest.engines:
        if one.precision == "int8" and one.runtime in asked.runtimes:
            raise BundleError(
                f"the bundle has {one.path} in int8 for {one.runtime}: start from the bundle "
                "that it was made of"
            )


@dataclass(frozen=True)
class Judged:
    """One candidate.

    Attributes:
        candidate: the runtime, its file and its precision.
        evaluated: on the pictures; differences are from fp32 on ONNX Runtime.
        golden_max_difference: of a logit from its golden output.
    """

    candidate: Candidate
    evaluated: Evaluated
    golden_max_difference: float

    @property
    def label(self) -> str:
        """``int8 on onnxruntime-cpu``."""
        return f"{self.candidate.precision} on {self.candidate.runtime}"


@dataclass(frozen=True)
class Verdict:
    """All candidates on the same pictures."""

    evaluation: Evaluation
    judged: tuple[Judged, ...]

    @property
    def reference_auc(self) -> float:
        """Of fp32."""
        return self.evaluation.results[0].auc


def judge(
    candidates: Sequence[Candidate],
    manifest: Manifest,
    files: Mapping[str, bytes],
    golden: Golden,
    pictures: Sequence[Labelled],
) -> Verdict:
    """Open every candidate beside the fp32 model, and run the pictures and the golden outputs."""
    reference = Candidate(REFERENCE, (manifest.model_file,), "fp32", on_gpu=False)
    with ExitStack() as opened:
        runtimes: list[Runtime] = []
        for candidate in (reference, *candidates):
            runtimes.append(open_candidate(candidate, manifest, files, 1))
            opened.callback(runtimes[-1].close)
        evaluation = evaluate(runtimes, manifest, pictures)
        far = [
            max(golden_logits(one, manifest, golden).differences(golden).values())
            for one in runtimes[1:]
        ]
    judged = map(Judged, candidates, evaluation.results[1:], far)
    return Verdict(evaluation, tuple(judged))


_CARD: Final = "MODEL_CARD.md"


@dataclass(frozen=True)
class Made:
    """What was made, and what it costs."""

    manifest: Manifest
    calibration_crops: int
    verdict: Verdict


@dataclass(frozen=True)
class _Calibration:
    crops: Sequence[NDArray[np.uint8]]
    digests: frozenset[str]


def quantized(directory: Path, out: Path, asked: Asked) -> Made:
    """Make the bundle ``out`` of the bundle ``directory``.

    Raises:
        BundleError: the bundle is not an fp32 one or has that precision already, ``out`` is not
            empty, a runtime or an instruction is missing, or a precision costs more AUC than was allowed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out} is not empty: name a new --out directory")
    machine = this_machine()
    verified = read_bundle(directory, machine)
    manifest = verified.manifest
    tried = candidates(asked, manifest, machine)
    calibration = _Calibration((), frozenset())
    graphs: dict[str, bytes] = {}
    if "int8" in asked.precisions:
        calibration = _calibrate(asked.calibration, manifest)
        model = verified.files[manifest.model_file]
        data = _int8_graph(model, manifest.input.name, calibration.crops)
        graphs = {INT8_FILES[one]: data for one in asked.runtimes}
    unseen = [one for one in asked.evaluation if _digest(one.path) not in calibration.digests]
    golden = read_golden(verified.golden_bytes)
    verdict = judge(tried, manifest, {**verified.files, **graphs}, golden, unseen)
    for one in verdict.judged:
        refuse_loss(one.label, verdict.evaluation, one.evaluated, asked.auc_loss_max)
    made = Made(_listed(manifest, asked, verdict.judged), len(calibration.crops), verdict)
    return _write(directory, out, made, graphs, verified)


def _int8_graph(model: bytes, input_name: str, crops: Sequence[NDArray[np.uint8]]) -> bytes:
    try:
        # Its packages are the trainer's: bf16 needs none of them.
        from engines.compile.int8 import int8_graph  # noqa: PLC0415  as said above
    except ImportError as error:
        raise BundleError(
            f"int8 needs a package that is not installed ({error}): install Synthgate's extra "
            "'trainer' from a checkout (make dev)"
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
            "no picture to calibrate on could be read: int8 needs --calibration with others"
        )
    return _Calibration(crops, frozenset(digests))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _listed(manifest: Manifest, asked: Asked, judged: Sequence[Judged]) -> Manifest:
    """The manifest of the new bundle; its lineage says what each precision cost."""
    tried = [one.candidate for one in judged]
    engines = tuple(
        EngineFile(path=INT8_FILES[one.runtime], runtime=one.runtime, precision="int8")
        for one in tried
        if one.precision == "int8"
    )
    missing = dict.fromkeys(one.runtime for one in tried if one.runtime not in manifest.runtimes)
    suffix = ".".join(dict.fromkeys(str(one.precision) for one in tried))
    return manifest.model_copy(
        update={
            "version": asked.version or f"{manifest.version.partition('+')[0]}+{suffix}",
            "engines": (*manifest.engines, *engines),
            "runtimes": (*manifest.runtimes, *missing),
            "tolerances": {**manifest.tolerances, **_tolerances(judged)},
            "lineage": manifest.lineage.model_copy(
                update={"config": {**manifest.lineage.config, **_costs(judged)}}
            ),
        }
    )


def _tolerances(judged: Sequence[Judged]) -> dict[str, float]:
    """By precision, of the runtime that is further from the golden outputs."""
    furthest: dict[str, float] = {}
    for one in judged:
        precision = str(one.candidate.precision)
        furthest[precision] = max(furthest.get(precision, 0.0), one.golden_max_difference)
    return {precision: measured_tolerance(most) for precision, most in furthest.items()}


def _costs(judged: Sequence[Judged]) -> dict[str, float]:
    return {
        f"{one.candidate.precision}.auc_difference.{one.candidate.runtime}": (
            one.evaluated.auc_difference
        )
        for one in judged
    }


def _write(
    directory: Path, out: Path, made: Made, graphs: dict[str, bytes], verified: Verified
) -> Made:
    """Beside ``out`` first: it appears whole and checked, or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        fresh = Path(folder) / "bundle"
        left = shutil.ignore_patterns(MANIFEST_FILE, SIGNATURES_FILE, REPORT_FILE)
        shutil.copytree(directory, fresh, ignore=left)
        for path, data in graphs.items():
            (fresh / path).write_bytes(data)
        with (fresh / _CARD).open("a", encoding="utf-8") as card:
            card.write(_card(made))
        written = write_manifest(fresh, made.manifest)
        _refuse_changed(verified.manifest, written)
        _load(fresh, written, [one.candidate for one in made.verdict.judged])
        if out.exists():
            out.rmdir()
        fresh.rename(out)
    return Made(written, made.calibration_crops, made.verdict)


def _refuse_changed(before: Manifest, after: Manifest) -> None:
    digests = {entry.path: entry.sha256 for entry in after.files}
    for entry in before.files:
        if entry.path not in {_CARD, REPORT_FILE} and (digests.get(entry.path) != entry.sha256):
            raise BundleError(f"{entry.path} was altered while the bundle was copied: try again")


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


def _card(made: Made) -> str:
    found = made.verdict.evaluation
    precisions = list(dict.fromkeys(str(one.candidate.precision) for one in made.verdict.judged))
    lines = [
        f"- {one.label}: AUC {one.evaluated.auc:.4f}, {one.evaluated.auc_difference:+.4f} from fp32; "
        f"decisions that change, at review and at block: {'; '.join(by_set(one.evaluated.changed))}"
        for one in made.verdict.judged
    ]
    ranges = (
        f" The int8 graph is static, by channel, its ranges those of {made.calibration_crops} crops."
        if "int8" in precisions
        else ""
    )
    return (
        f"\n## {' and '.join(precisions)}\n\n"
        f"Measured by `python -m engines quantize` against fp32, on {found.real} real and "
        f"{found.fake} fake pictures, none of them used to calibrate.{ranges}\n\n"
        + "\n".join(lines)
        + "\n\nThe figures above are those of the fp32 model.\n"
    )
