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
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)


def _plain(path: str) -> str:
    """Refuses a path that could lead outside the bundle or be written in two ways."""
    pure = PurePosixPath(path)
    plain = pure.as_posix() == path and "\\" not in path and "\0" not in path
    if not plain or pure.is_absolute() or ".." in pure.parts or path == ".":
        raise ValueError(f"{path!r} is not a plain relative path inside the bundle")
    return path


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("the time needs a time zone, for instance 2026-01-31T12:00:00Z")
    return moment.astimezone(UTC)


BundlePath = Annotated[str, Field(min_length=1), AfterValidator(_plain)]
UtcTime = Annotated[datetime, AfterValidator(_utc)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
Semver = Annotated[
    str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$")
]
Fraction = Annotated[float, Field(ge=0, le=1)]
Mean3 = tuple[Fraction, Fraction, Fraction]
Positive = Annotated[float, Field(gt=0)]
Std3 = tuple[Positive, Positive, Positive]
ConfigValue = str | int | float | bool | None


class Part(BaseModel):
    """The rules of every part: frozen, no unknown key, no number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


CropPolicy = Literal["center", "grid", "five_crop"]
MaxCrops = Annotated[int, Field(ge=1, le=64)]
# Of the policies that take a certain number.
_CROPS = {"center": 1, "five_crop": 5}


def crops_of(policy: str) -> int | None:
    """How many crops a policy takes of a picture; None where ``max_crops`` says it."""
    return _CROPS.get(policy)


def refuse_other_count(policy: CropPolicy, max_crops: int) -> None:
    """Raise ValueError where the policy takes another number of crops than ``max_crops`` says."""
    count = crops_of(policy)
    if count is not None and max_crops != count:
        raise ValueError(f"crop_policy {policy!r} takes {count}: set max_crops to {count}")


class InputSpec(Part):
    """The model's one input, raw uint8 pixels: the graph itself casts and normalises them.

    ``mean`` and ``std`` are on the 0..1 scale and recorded for the reader alone.
    """

    name: str = "image_NHWC"
    dtype: Literal["uint8"] = "uint8"
    layout: Literal["NHWC"] = "NHWC"
    colour_order: Literal["RGB"] = "RGB"
    height_px: Annotated[int, Field(gt=0)]
    width_px: Annotated[int, Field(gt=0)]
    batch_min: Literal[1] = 1
    batch_opt: Annotated[int, Field(ge=1)]
    batch_max: Annotated[int, Field(ge=1)]
    range_min: Literal[0] = 0
    range_max: Literal[255] = 255
    mean: Mean3
    std: Std3

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.batch_min <= self.batch_opt <= self.batch_max:
            raise ValueError("batch_min <= batch_opt <= batch_max must hold")
        return self


class PreprocessSpec(Part):
    """How an image becomes crops; ``engines.preprocess`` follows it, for trainer and worker."""

    version: Annotated[str, Field(min_length=1)]
    crop_policy: CropPolicy
    crop_px: Annotated[int, Field(gt=0)]
    max_crops: MaxCrops = 1
    pad: Literal["reflect"] = "reflect"
    alpha_background: tuple[Literal[255], Literal[255], Literal[255]] = (255, 255, 255)

    @model_validator(mode="after")
    def _as_many_as_the_policy_takes(self) -> Self:
        refuse_other_count(self.crop_policy, self.max_crops)
        return self


class Calibration(Part):
    """How a logit becomes a score: ``sigmoid(scale * logit + bias)``."""

    id: Slug
    method: Literal["none", "temperature", "platt"]
    scale: Annotated[float, Field(gt=0)] = 1.0
    bias: float = 0.0
    fitted_on: str
    n: Annotated[int, Field(ge=0)]
    ece: float | None = None
    nll: float | None = None

    @model_validator(mode="after")
    def _as_the_method_says(self) -> Self:
        if self.method == "none" and self.scale != 1.0:
            raise ValueError("method 'none' means scale 1")
        if self.method != "platt" and self.bias != 0.0:
            raise ValueError(f"method {self.method!r} means bias 0")
        return self


class OperatingPoint(Part):
    """A threshold on the score, and the false-positive rate measured at it."""

    threshold: Fraction
    fpr: Fraction
    fpr_ci_low: Fraction
    fpr_ci_high: Fraction
    n_real: Annotated[int, Field(ge=0)]


class ThresholdSet(Part):
    """Where the bands begin: an image is in a band when its score >= the band's threshold."""

    id: Slug
    review: OperatingPoint
    block: OperatingPoint
    measured_on: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.block.threshold < self.review.threshold:
            raise ValueError("block.threshold must be at least review.threshold")
        return self


class GeneratorMetric(Part):
    """How well one generator's images are told from real ones; ``generator="all"`` pools them."""

    generator: Annotated[str, Field(min_length=1)]
    condition: Literal["native", "aligned"]
    seen_in_training: bool
    n_fake: Annotated[int, Field(ge=0)]
    n_real: Annotated[int, Field(ge=0)]
    auc: Fraction
    ap: Fraction
    accuracy_at_half: Fraction
    real_accuracy: Fraction
    fake_accuracy: Fraction


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
