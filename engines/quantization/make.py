"""A bundle that also runs in int8 or bf16 on CPUs, if that is as good as fp32.

In: an fp32 bundle, pictures to calibrate on, other labelled ones to judge by. Out: a new, unsigned
bundle directory, and what each precision costs. Errors: ``BundleError``; then nothing is left behind.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.agreement import check_golden, measured_tolerance
from engines.golden import read_golden
from engines.manifest import (
    MANIFEST_FILE,
    SIGNATURES_FILE,
    BundleError,
    EngineFile,
    Manifest,
    write_manifest,
)
from engines.parity.changes import by_set
from engines.parity.evaluation import refuse_loss
from engines.parity.report import REPORT_FILE
from engines.preprocess import ImageError, Limits, prepare
from engines.quantization.graph import int8_graph
from engines.quantization.judge import Judged, Verdict, judge
from engines.quantization.request import INT8_FILES, Asked, candidates
from engines.runtime import open_candidate
from engines.runtime.machine import this_machine
from engines.runtime.selection import Candidate
from engines.verify import Verified, read_bundle

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
        data = int8_graph(model, manifest.input.name, calibration.crops)
        graphs = {INT8_FILES[one]: data for one in asked.runtimes}
    unseen = [one for one in asked.evaluation if _digest(one.path) not in calibration.digests]
    golden = read_golden(verified.golden_bytes)
    verdict = judge(tried, manifest, {**verified.files, **graphs}, golden, unseen)
    for one in verdict.judged:
        refuse_loss(one.label, verdict.evaluation, one.evaluated, asked.auc_loss_max)
    made = Made(_listed(manifest, asked, verdict.judged), len(calibration.crops), verdict)
    return _write(directory, out, made, graphs, verified)


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
