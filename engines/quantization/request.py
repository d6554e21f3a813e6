"""What of lower precision is asked of a bundle, and whether this machine can judge it.

In: the wish, a manifest, the machine. Out: what is to be tried. Errors: ``BundleError``, where it
cannot be made or judged, or is there already.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from engines.manifest import BundleError, Manifest
from engines.parity.pictures import Labelled
from engines.runtime.machine import BF16_FEATURES, Machine
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
