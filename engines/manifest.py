"""What a bundle says of itself: ``manifest.json``, read, checked and written.

In: a bundle's directory, or the bytes of its manifest. Out: a frozen, validated ``Manifest``.
Errors: ``BundleError``, whose message names the file and says what to do.

The manifest names every other file of the bundle by its SHA-256, so the digest of the
manifest's own bytes (``manifest_sha256``) identifies the whole bundle.
"""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    Field,
    ValidationError,
    model_validator,
)

from engines.fields import (
    BundlePath,
    ConfigValue,
    Part,
    Semver,
    Sha256,
    Slug,
    UtcTime,
)
from engines.measured import Calibration, GeneratorMetric, OperatingPoint, ThresholdSet
from engines.model_input import InputSpec, PreprocessSpec

__all__ = [
    "MANIFEST_FILE",
    "SCHEMA_VERSION",
    "SIGNATURES_FILE",
    "BundleError",
    "Calibration",
    "EngineFile",
    "FileEntry",
    "GeneratorMetric",
    "InputSpec",
    "Lineage",
    "Manifest",
    "OperatingPoint",
    "Precision",
    "PreprocessSpec",
    "ThresholdSet",
    "manifest_sha256",
    "parse_manifest",
    "read_manifest",
    "read_manifest_bytes",
    "write_manifest",
]

MANIFEST_FILE = "manifest.json"
SIGNATURES_FILE = "signatures.json"  # of the manifest, which therefore cannot list it
SCHEMA_VERSION: Final = 1
_TEMPORARY_FILE = ".manifest.json.tmp"
_MAX_MANIFEST_BYTES = 4 * 1024 * 1024  # a real one has a few KiB


Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]


class BundleError(Exception):
    """A bundle that must not be used; the message names the file and says what to do."""


class FileEntry(Part):
    """One file of the bundle: every file but the manifest has one."""

    path: BundlePath
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class EngineFile(Part):
    """Another file of the bundle that a runtime can load in place of ``model_file``.

    Attributes:
        path: the file; ``files`` lists it too.
        runtime: whose file it is, for instance ``tensorrt`` (a plan) or ``onnxruntime-cpu`` (a graph).
        precision: what the graph computes in; ``tolerances`` has an entry for it.
        compute_capability: of the GPU that a plan is bound to, "9.0"; None for a graph.
        runtime_version: the exact release that a plan is bound to, "11.4.0"; None for a graph.
        hardware_compatible: whether a plan also runs on later architectures.
    """

    path: BundlePath
    runtime: Slug
    precision: Precision
    compute_capability: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]$")] | None = None
    runtime_version: Annotated[str, Field(min_length=1)] | None = None
    hardware_compatible: bool = False


class Lineage(Part):
    """Where the model came from."""

    code_commit: str
    data_digest: str
    teacher_id: str
    seed: int
    created_by: str
    config: dict[str, ConfigValue]


class Manifest(Part):
    """The whole of ``manifest.json``."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Slug
    version: Semver
    created_at: UtcTime
    files: tuple[FileEntry, ...] = ()
    model_file: BundlePath = "model.onnx"
    golden_file: BundlePath = "golden.npz"
    output_name: str = "logit_N"
    precision: Precision = "fp32"
    engines: tuple[EngineFile, ...] = ()
    input: InputSpec
    preprocess: PreprocessSpec
    calibration: Calibration
    threshold_sets: Annotated[tuple[ThresholdSet, ...], Field(min_length=1)]
    default_threshold_set: Slug
    metrics: tuple[GeneratorMetric, ...] = ()
    explained_variance: float | None = None
    lineage: Lineage
    tolerances: dict[str, Annotated[float, Field(gt=0)]]
    runtimes: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _unique("files", [entry.path for entry in self.files])
        if {entry.path for entry in self.files} & {MANIFEST_FILE, SIGNATURES_FILE}:
            raise ValueError(f"files cannot list {MANIFEST_FILE} or {SIGNATURES_FILE}")
        _unique("engines", [one.path for one in self.engines])
        if self.model_file in {one.path for one in self.engines}:
            raise ValueError(f"engines lists {self.model_file}, which is the model itself")
        for one in self.engines:
            if one.precision not in self.tolerances:
                raise ValueError(f"tolerances has no entry for the precision {one.precision!r}")
        _unique("threshold_sets", [one.id for one in self.threshold_sets])
        if self.default_threshold_set not in {one.id for one in self.threshold_sets}:
            raise ValueError(f"no threshold set has the id {self.default_threshold_set!r}")
        if self.precision not in self.tolerances:
            raise ValueError(f"tolerances has no entry for the precision {self.precision!r}")
        side_px = self.preprocess.crop_px
        if (self.input.height_px, self.input.width_px) != (side_px, side_px):
            raise ValueError(f"the input must be {side_px} x {side_px} px, as preprocess.crop_px")
        return self

    def score(self, logit: float) -> float:
        """P(AI-generated) in [0, 1]: ``sigmoid(scale * logit + bias)``; never overflows."""
        calibrated = self.calibration.scale * logit + self.calibration.bias
        if calibrated >= 0:
            return 1.0 / (1.0 + math.exp(-calibrated))
        odds = math.exp(calibrated)
        return odds / (1.0 + odds)

    def threshold_set(self, set_id: str | None = None) -> ThresholdSet:
        """The threshold set of that id, or the default one; ``BundleError`` if there is none.

        What follows NAME-VERSION- in an id will do as well: a worker that follows a channel must
        find its set in the next version, too.
        """
        wanted = self.default_threshold_set if set_id is None else set_id
        for name in (wanted, f"{self.name}-{self.version}-{wanted}".replace("+", "-")):
            for one in self.threshold_sets:
                if one.id == name:
                    return one
        known = ", ".join(one.id for one in self.threshold_sets)
        raise BundleError(f"the bundle has no threshold set {wanted!r}: choose one of {known}")


def _unique(what: str, values: list[str]) -> None:
    if len(set(values)) != len(values):
        raise ValueError(f"{what} names something twice")


def parse_manifest(data: bytes, where: Path | str = MANIFEST_FILE) -> Manifest:
    """Read a manifest from its bytes; ``where`` is named in the messages of ``BundleError``."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON ({error}): export the bundle again") from error
    version = found.get("schema_version") if isinstance(found, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{where} has schema_version {version!r}, this release reads {SCHEMA_VERSION}: "
            "export the bundle with this release, or run the release that wrote it"
        )
    try:
        return Manifest.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise BundleError(f"{where} is not valid: {_in_words(error)}; export it again") from error


def _in_words(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(step) for step in one['loc']) or 'manifest'}: {one['msg']}"
        for one in error.errors(include_url=False)
    )


def read_manifest_bytes(directory: Path) -> bytes:
    """The bytes of the directory's manifest; ``BundleError`` if there is none to read."""
    path = directory / MANIFEST_FILE
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}): name the directory of a bundle"
        ) from error
    if len(data) > _MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is over {_MAX_MANIFEST_BYTES} bytes: it is not a manifest")
    return data


def read_manifest(directory: Path) -> Manifest:
    """Read and validate the manifest; the other files are not looked at (see ``verify``)."""
    return parse_manifest(read_manifest_bytes(directory), directory / MANIFEST_FILE)


def manifest_sha256(directory: Path) -> str:
    """The bundle's identity: the SHA-256 of its manifest's bytes, in hexadecimal."""
    return hashlib.sha256(read_manifest_bytes(directory)).hexdigest()


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Write ``manifest.json`` over the files that lie in the directory; returns what was written.

    ``manifest.files`` is replaced by what is found. The file appears whole or not at all.
    """
    complete = manifest.model_copy(update={"files": _entries(directory)})
    text = complete.model_dump_json(indent=2) + "\n"
    parse_manifest(text.encode(), directory / MANIFEST_FILE)
    temporary = directory / _TEMPORARY_FILE
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / MANIFEST_FILE)
    return complete


def _entries(directory: Path) -> tuple[FileEntry, ...]:
    entries = []
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise BundleError(f"{path} is a symbolic link: put the file itself into the bundle")
        if path.is_dir() or relative in {MANIFEST_FILE, SIGNATURES_FILE, _TEMPORARY_FILE}:
            continue
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        entries.append(FileEntry(path=relative, sha256=digest, bytes=len(data)))
    return tuple(entries)
