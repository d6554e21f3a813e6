"""The manifest of a bundle, ``manifest.json``: its parts, and how it is read, checked and written.

In: a bundle's directory, or the bytes of its manifest. Out: a frozen, validated ``Manifest``.
Errors: ``BundleError``, whose message names the file and says what to do.

The manifest names every other file of the bundle with its SHA-256. The digest of the manifest's
own bytes (``manifest_sha256``) therefore identifies the whole bundle.
"""

import hashlib
import json
import math
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

from engines.bundle.files import write_atomically

MANIFEST_FILE: Final = "manifest.json"
SIGNATURES_FILE: Final = "signatures.json"  # signs the manifest, which therefore cannot list it
SCHEMA_VERSION: Final = 1
_TEMPORARY_PREFIX: Final = f".{MANIFEST_FILE}."  # of a writer that was killed
_MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024  # a usual one has a few KiB

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]


class BundleError(Exception):
    """The bundle cannot be used; the message names the file and says what to do."""


def _plain(path: str) -> str:
    """Reject a path that leads outside the bundle or has a second spelling."""
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


class StrictModel(BaseModel):
    """Base of everything read from JSON: frozen, unknown keys and non-finite numbers refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ThresholdBand = Literal["review", "block"]  # "allow" has no threshold
WEIGHTS_SHA256 = "weights.sha256"  # the key of lineage.config with the digest of ``weights_file``
CropPolicy = Literal["center", "grid", "five_crop"]
MaxCrops = Annotated[int, Field(ge=1, le=64)]
# Policies with a fixed number of crops.
_CROPS: Final = {"center": 1, "five_crop": 5}


def crops_of(policy: str) -> int | None:
    """The number of crops that a policy takes from an image; None if ``max_crops`` decides."""
    return _CROPS.get(policy)


def refuse_other_count(policy: CropPolicy, max_crops: int) -> None:
    """Raise ``ValueError`` if ``max_crops`` contradicts the policy's fixed number of crops."""
    count = crops_of(policy)
    if count is not None and max_crops != count:
        raise ValueError(f"crop_policy {policy!r} takes {count}: set max_crops to {count}")


class InputSpec(StrictModel):
    """The model's only input: raw uint8 pixels, which the graph itself casts and normalises.

    ``mean`` and ``std`` (on the 0..1 scale) are for information only.
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
    def _check_order(self) -> Self:
        if not self.batch_min <= self.batch_opt <= self.batch_max:
            raise ValueError("batch_min <= batch_opt <= batch_max must hold")
        return self


class PreprocessSpec(StrictModel):
    """How an image becomes crops; ``engines.preprocess`` implements it for trainer and worker."""

    version: Annotated[str, Field(min_length=1)]
    crop_policy: CropPolicy
    crop_px: Annotated[int, Field(gt=0)]
    max_crops: MaxCrops = 1
    pad: Literal["reflect"] = "reflect"
    alpha_background: tuple[Literal[255], Literal[255], Literal[255]] = (255, 255, 255)

    @model_validator(mode="after")
    def _check_crop_count(self) -> Self:
        refuse_other_count(self.crop_policy, self.max_crops)
        return self


class Calibration(StrictModel):
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
    def _check_method(self) -> Self:
        if self.method == "none" and self.scale != 1.0:
            raise ValueError("method 'none' means scale 1")
        if self.method != "platt" and self.bias != 0.0:
            raise ValueError(f"method {self.method!r} means bias 0")
        return self


class OperatingPoint(StrictModel):
    """A threshold on the score, with the false-positive rate measured at it."""

    threshold: Fraction
    fpr: Fraction
    fpr_ci_low: Fraction
    fpr_ci_high: Fraction
    n_real: Annotated[int, Field(ge=0)]

    def rate_text(self) -> str:
        """The false-positive rate with its interval: ``1.00% (0.80% to 1.20%)``."""
        return f"{self.fpr:.2%} ({self.fpr_ci_low:.2%} to {self.fpr_ci_high:.2%})"


class ThresholdSet(StrictModel):
    """Where the bands begin: an image is in a band if its score >= the band's threshold."""

    id: Slug
    review: OperatingPoint
    block: OperatingPoint
    measured_on: str

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.block.threshold < self.review.threshold:
            raise ValueError("block.threshold must be at least review.threshold")
        return self

    def points(self) -> dict[ThresholdBand, OperatingPoint]:
        """The operating point of each band, the lower threshold first."""
        return {"review": self.review, "block": self.block}


class GeneratorMetric(StrictModel):
    """How well the model separates one generator's images from real ones.

    ``generator="all"`` pools all generators.
    """

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


class FileEntry(StrictModel):
    """One file of the bundle; every file except the manifest and its signatures has an entry."""

    path: BundlePath
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class EngineFile(StrictModel):
    """A file that a runtime can load in place of ``model_file``.

    Attributes:
        path: the file, also listed in ``files``.
        runtime: which runtime loads it: ``tensorrt`` (a plan), ``onnxruntime-cpu`` (a graph).
        precision: what it computes in; ``tolerances`` has an entry for it.
        compute_capability: the GPU that a plan is bound to, "9.0"; None for a graph.
        runtime_version: the release that a plan is bound to, "11.4.0"; None for a graph.
        hardware_compatible: whether a plan also runs on later GPU architectures.
    """

    path: BundlePath
    runtime: Slug
    precision: Precision
    compute_capability: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]$")] | None = None
    runtime_version: Annotated[str, Field(min_length=1)] | None = None
    hardware_compatible: bool = False


class Lineage(StrictModel):
    """Where the model came from."""

    code_commit: str
    data_digest: str
    teacher_id: str
    seed: int
    created_by: str
    config: dict[str, ConfigValue]


class Manifest(StrictModel):
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
    def _check_references(self) -> Self:
        _check_unique("files", [entry.path for entry in self.files])
        if {entry.path for entry in self.files} & {MANIFEST_FILE, SIGNATURES_FILE}:
            raise ValueError(f"files cannot list {MANIFEST_FILE} or {SIGNATURES_FILE}")
        _check_unique("engines", [engine.path for engine in self.engines])
        if self.model_file in {engine.path for engine in self.engines}:
            raise ValueError(f"engines lists {self.model_file}, which is the model itself")
        for engine in self.engines:
            if engine.precision not in self.tolerances:
                raise ValueError(f"tolerances has no entry for the precision {engine.precision!r}")
        _check_unique("threshold_sets", [thresholds.id for thresholds in self.threshold_sets])
        if self.default_threshold_set not in {thresholds.id for thresholds in self.threshold_sets}:
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

        The part of an id after NAME-VERSION- is accepted too, so that a worker that follows a
        channel finds the same set in the next version.
        """
        wanted = self.default_threshold_set if set_id is None else set_id
        for name in (wanted, f"{self.name}-{self.version}-{wanted}".replace("+", "-")):
            for thresholds in self.threshold_sets:
                if thresholds.id == name:
                    return thresholds
        known = ", ".join(thresholds.id for thresholds in self.threshold_sets)
        raise BundleError(f"the bundle has no threshold set {wanted!r}: choose one of {known}")


def _check_unique(what: str, values: list[str]) -> None:
    if len(set(values)) != len(values):
        raise ValueError(f"{what} names something twice")


def parse_manifest(data: bytes, where: Path | str = MANIFEST_FILE) -> Manifest:
    """Read a manifest from its bytes; ``where`` is named in the messages of ``BundleError``."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON ({error}): export the bundle again") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{where} has schema_version {version!r}, this release reads {SCHEMA_VERSION}: "
            "export the bundle with this release, or run the release that wrote it"
        )
    try:
        return Manifest.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise BundleError(f"{where} is not valid: {_summary(error)}; export it again") from error


def _summary(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(step) for step in problem['loc']) or 'manifest'}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )


def read_manifest_bytes(directory: Path) -> bytes:
    """The bytes of the directory's manifest; ``BundleError`` if they cannot be read."""
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
    """Read and validate the manifest; ``engines.bundle.verify`` checks the other files."""
    return parse_manifest(read_manifest_bytes(directory), directory / MANIFEST_FILE)


def weights_file(directory: Path) -> Path:
    """The trained weights beside a bundle's directory; its manifest may name their digest.

    A training starts from them. They are not a file of the bundle: no worker needs them.
    """
    directory = directory.resolve()
    return directory.with_name(f"{directory.name}.weights.safetensors")


def manifest_sha256(directory: Path) -> str:
    """The bundle's identity: the SHA-256 of its manifest's bytes, in hexadecimal."""
    return hashlib.sha256(read_manifest_bytes(directory)).hexdigest()


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Write ``manifest.json`` for the files in the directory, atomically.

    Returns:
        The manifest as written: ``files`` replaced by what the directory holds.
    """
    complete = manifest.model_copy(update={"files": _entries(directory)})
    text = complete.model_dump_json(indent=2) + "\n"
    parse_manifest(text.encode(), directory / MANIFEST_FILE)
    write_atomically(directory / MANIFEST_FILE, text)
    return complete


def _entries(directory: Path) -> tuple[FileEntry, ...]:
    entries = []
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise BundleError(f"{path} is a symbolic link: put the file itself into the bundle")
        if path.is_dir() or relative in {MANIFEST_FILE, SIGNATURES_FILE}:
            continue
        if relative.startswith(_TEMPORARY_PREFIX):
            continue
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        entries.append(FileEntry(path=relative, sha256=digest, bytes=len(data)))
    return tuple(entries)
