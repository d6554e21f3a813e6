"""A bundle with an int8 graph beside the model, if the graph is worth it.

In: an fp32 bundle, pictures to calibrate on, other labelled ones to judge by. Out: a new, unsigned
bundle directory, and what int8 costs. Errors: ``BundleError``; then nothing is left behind.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.agreement import check_golden, golden_logits, measured_tolerance
from engines.golden import read_golden
from engines.manifest import (
    MANIFEST_FILE,
    SIGNATURES_FILE,
    BundleError,
    EngineFile,
    Manifest,
    write_manifest,
)
from engines.parity.evaluation import Evaluated, Evaluation, evaluate
from engines.parity.pictures import Labelled
from engines.parity.report import REPORT_FILE
from engines.preprocess import ImageError, Limits, prepare
from engines.quantization.graph import int8_graph
from engines.runtime import Runtime, open_candidate
from engines.runtime.machine import Machine, this_machine
from engines.runtime.selection import KINDS, Candidate
from engines.verify import Verified, read_bundle

REFERENCE: Final = "onnxruntime-cpu"
# Every runtime has a file of its own, as a manifest's engines want it.
INT8_FILES: Final = {REFERENCE: "model.int8.onnx", "openvino-cpu": "model.int8.openvino.onnx"}
_CARD: Final = "MODEL_CARD.md"


@dataclass(frozen=True)
class Asked:
    """What is to be made.

    Attributes:
        runtimes: which get the graph; keys of ``INT8_FILES``.
        calibration: pictures whose crops set the ranges.
        evaluation: labelled pictures; those that calibration used are left out.
        auc_loss_max: int8 may have this much less AUC than fp32.
        version: of the new bundle; None for the old one's with ``+int8``.
    """

    runtimes: tuple[str, ...]
    calibration: Sequence[Path]
    evaluation: Sequence[Labelled]
    auc_loss_max: float
    version: str | None = None


@dataclass(frozen=True)
class Made:
    """What was made, and what it costs, by runtime."""

    manifest: Manifest
    calibration_crops: int
    evaluation: Evaluation
    results: dict[str, Evaluated]
    golden_max_difference: float
    reference_auc: float


@dataclass(frozen=True)
class _Calibration:
    crops: Sequence[NDArray[np.uint8]]
    digests: frozenset[str]


def quantized(directory: Path, out: Path, asked: Asked) -> Made:
    """Make the bundle ``out`` of the bundle ``directory``.

    Raises:
        BundleError: the bundle is not an fp32 one or has int8 already, ``out`` is not empty, a
            runtime is missing, or int8 costs more AUC than was allowed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out} is not empty: name a new --out directory")
    machine = this_machine()
    verified = read_bundle(directory, machine)
    manifest = verified.manifest
    _refuse(manifest, asked, machine)
    calibration = _calibrate(asked.calibration, manifest)
    data = int8_graph(verified.files[manifest.model_file], manifest.input.name, calibration.crops)
    unseen = [one for one in asked.evaluation if _digest(one.path) not in calibration.digests]
    made = _judge(verified, asked, data, unseen, len(calibration.crops))
    _refuse_loss(made, asked)
    return _write(directory, out, made, data, verified)


def _refuse(manifest: Manifest, asked: Asked, machine: Machine) -> None:
    if manifest.precision != "fp32":
        raise BundleError(f"the model is in {manifest.precision}: int8 is made of an fp32 one")
    unknown = [one for one in asked.runtimes if one not in INT8_FILES]
    if unknown or not asked.runtimes:
        raise BundleError(f"no int8 graph is made for {unknown}: choose of {', '.join(INT8_FILES)}")
    for kind in KINDS:
        why = kind.int8_problem(machine) if kind.name in asked.runtimes else None
        if why is not None:
            raise BundleError(f"int8 for {kind.name} cannot be judged here: {why}")
    for one in manifest.engines:
        if one.precision == "int8" and one.runtime in asked.runtimes:
            raise BundleError(
                f"the bundle has {one.path} in int8 for {one.runtime}: start from the bundle "
                "that it was made of"
            )


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
        raise BundleError("no picture to calibrate on could be read: name others")
    return _Calibration(crops, frozenset(digests))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _judge(
    verified: Verified, asked: Asked, data: bytes, pictures: Sequence[Labelled], crops: int
) -> Made:
    manifest, golden = verified.manifest, read_golden(verified.golden_bytes)
    files = {**verified.files, **dict.fromkeys(INT8_FILES.values(), data)}
    reference = Candidate(REFERENCE, (manifest.model_file,), "fp32", on_gpu=False)
    quantised = [Candidate(one, (INT8_FILES[one],), "int8", on_gpu=False) for one in asked.runtimes]
    with ExitStack() as opened:
        runtimes: list[Runtime] = []
        for candidate in (reference, *quantised):
            runtimes.append(open_candidate(candidate, manifest, files, 1))
            opened.callback(runtimes[-1].close)
        evaluation = evaluate(runtimes, manifest, pictures)
        difference = max(
            max(golden_logits(one, manifest, golden).differences(golden).values())
            for one in runtimes[1:]
        )
    results = dict(zip(asked.runtimes, evaluation.results[1:], strict=True))
    listed = _listed(manifest, asked, measured_tolerance(difference), results)
    return Made(listed, crops, evaluation, results, difference, evaluation.results[0].auc)


def _listed(
    manifest: Manifest, asked: Asked, tolerance: float, results: dict[str, Evaluated]
) -> Manifest:
    """The manifest of the new bundle; its lineage says what int8 cost."""
    engines = tuple(
        EngineFile(path=INT8_FILES[one], runtime=one, precision="int8") for one in asked.runtimes
    )
    costs = {f"int8.auc_difference.{name}": one.auc_difference for name, one in results.items()}
    missing = tuple(one for one in asked.runtimes if one not in manifest.runtimes)
    return manifest.model_copy(
        update={
            "version": asked.version or f"{manifest.version.partition('+')[0]}+int8",
            "engines": (*manifest.engines, *engines),
            "runtimes": (*manifest.runtimes, *missing),
            "tolerances": {**manifest.tolerances, "int8": tolerance},
            "lineage": manifest.lineage.model_copy(
                update={"config": {**manifest.lineage.config, **costs}}
            ),
        }
    )


def _refuse_loss(made: Made, asked: Asked) -> None:
    for name, one in made.results.items():
        if -one.auc_difference > asked.auc_loss_max:
            raise BundleError(
                f"int8 on {name} has an AUC of {one.auc:.4f}, fp32 {made.reference_auc:.4f}, on "
                f"{made.evaluation.real} real and {made.evaluation.fake} fake pictures: it loses "
                f"more than {asked.auc_loss_max:.4f}. Stay with fp32, calibrate on other or more "
                "pictures, or allow it by --auc-loss-max"
            )


def _write(directory: Path, out: Path, made: Made, data: bytes, verified: Verified) -> Made:
    """Beside ``out`` first: it appears whole and checked, or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        fresh = Path(folder) / "bundle"
        left = shutil.ignore_patterns(MANIFEST_FILE, SIGNATURES_FILE, REPORT_FILE)
        shutil.copytree(directory, fresh, ignore=left)
        for engine in made.manifest.engines:
            if engine.path in INT8_FILES.values():
                (fresh / engine.path).write_bytes(data)
        with (fresh / _CARD).open("a", encoding="utf-8") as card:
            card.write(_card(made))
        written = write_manifest(fresh, made.manifest)
        _refuse_changed(verified.manifest, written)
        _load(fresh, written)
        if out.exists():
            out.rmdir()
        fresh.rename(out)
    return replace(made, manifest=written)


def _refuse_changed(before: Manifest, after: Manifest) -> None:
    digests = {entry.path: entry.sha256 for entry in after.files}
    for entry in before.files:
        if entry.path not in {_CARD, REPORT_FILE} and (digests.get(entry.path) != entry.sha256):
            raise BundleError(f"{entry.path} was altered while the bundle was copied: try again")


def _load(directory: Path, manifest: Manifest) -> None:
    """Open every int8 graph as it was written, and compare it with the golden outputs."""
    verified = read_bundle(directory, this_machine())
    golden = read_golden(verified.golden_bytes)
    for engine in manifest.engines:
        if engine.precision == "int8" and engine.path in INT8_FILES.values():
            candidate = Candidate(engine.runtime, (engine.path,), "int8", on_gpu=False)
            runtime = open_candidate(candidate, manifest, verified.files, 1)
            try:
                check_golden(runtime, manifest, golden)
            finally:
                runtime.close()


def _card(made: Made) -> str:
    found = made.evaluation
    lines = [
        f"- {name}: AUC {one.auc:.4f}, {one.auc_difference:+.4f} from fp32; "
        + ", ".join(f"{c.changed} of {c.of} decisions change at {c.band}" for c in one.changed)
        for name, one in made.results.items()
    ]
    return (
        "\n## int8\n\n"
        f"A graph in int8 was made by `python -m engines quantize` (static, by channel, ranges of "
        f"{made.calibration_crops} crops), and compared with fp32 on {found.real} real and "
        f"{found.fake} fake pictures that it was not calibrated on:\n\n" + "\n".join(lines) + "\n"
        "\nThe figures above are those of the fp32 model.\n"
    )
