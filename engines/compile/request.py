"""What is asked of a compilation, and what came of it: plain values, which import no library."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engines.manifest import EngineFile, Manifest, Precision
from engines.tensorrt_api import Target


@dataclass(frozen=True)
class Request:
    """What is to be compiled.

    Attributes:
        source: the bundle; it stays as it is.
        out: the new bundle's directory, which must not be there yet.
        target: the library to build with.
        precisions: a plan for each, the preferred one first.
        capability: the GPU's compute capability; None for what the target takes by default.
        hardware_compatible: for all later architectures too.
        calibration: a directory of images, for int8.
        tolerances: by precision, in place of the manifest's or the defaults.
        version: of the new bundle; None for the source's.
    """

    source: Path
    out: Path
    target: Target
    precisions: tuple[Precision, ...]
    capability: str | None = None
    hardware_compatible: bool = False
    calibration: Path | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    version: str | None = None


@dataclass(frozen=True)
class Made:
    """One plan of the new bundle.

    Attributes:
        engine: what the manifest says of it.
        bytes: its length.
        golden_max_difference: of the graph, on the CPU; None where the CPU cannot run it.
        auc_difference: of the graph, on the CPU, from the model; None where it was not judged.
        built_s: how long building took.
    """

    engine: EngineFile
    bytes: int
    golden_max_difference: float | None
    auc_difference: float | None
    built_s: float


@dataclass(frozen=True)
class Compiled:
    """The new bundle: its manifest, and what was made for it."""

    manifest: Manifest
    made: tuple[Made, ...]
