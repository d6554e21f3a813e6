"""Every choice of a training run, named; read from TOML files and checked.

The options of ANL, and which of them are a reading of the method, are explained in
``docs/concepts/anl.md``. Errors: ``ConfigError``, which says what to change.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from engines.bundle.manifest import CropPolicy, MaxCrops, PreprocessSpec, refuse_other_count
from engines.preprocess import PREPROCESS_VERSION
from trainer.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Part(BaseModel):
    """A table of the configuration: frozen, without unknown options."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Options that were removed, with what to do instead.
    removed: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse_removed(cls, values: object) -> object:
        for name, advice in cls.removed.items():
            if isinstance(values, dict) and name in values:
                raise ValueError(f"{name} was removed: {advice}")
        return values


def problems_of(error: ValidationError) -> str:
    """Say which options (or cells, or fields) are wrong, and how."""
    return "; ".join(
        f"{'.'.join(str(step) for step in problem['loc']) or 'the whole'}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
Table = TypeVar("Table", bound=Part)


def read_toml(table: type[Table], path: Path, environment: Mapping[str, str]) -> Table:
    """Read a file; ``${CONFIG_FOLDER}`` in its strings is the directory that it is in."""
    data = _bytes_of(path).replace(b"${CONFIG_FOLDER}", path.parent.as_posix().encode())
    return parse_toml(table, data, environment, str(path))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): name a TOML file") from error


def parse_toml(
    table: type[Table], data: bytes, environment: Mapping[str, str], where: str
) -> Table:
    """Read a table; ``${NAME}`` in its strings is taken from the environment."""
    try:
        tree = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error
    try:
        return table.model_validate(_substituted(tree, environment, where))
    except ValidationError as error:
        raise ConfigError(f"{where} is not valid: {problems_of(error)}") from error


def _substituted(value: object, environment: Mapping[str, str], where: str) -> object:
    if isinstance(value, dict):
        return {key: _substituted(inner, environment, where) for key, inner in value.items()}
    if isinstance(value, list):
        return [_substituted(item, environment, where) for item in value]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environment:
            raise ConfigError(f"{where} refers to ${{{name}}}: set that environment variable")
        return environment[name]

    return _VARIABLE.sub(lookup, value)


ResizeFilter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


class AugmentConfig(Part):
    """What happens to every crop, real and fake alike (a pair shares every draw).

    A crop is resized, blurred, mirrored, turned, recoloured, made noisy and re-encoded, in this
    order, each with its own probability; ``jpeg_p`` and ``webp_p`` exclude each other. With
    probability ``chain_p`` it passes a chain in place of resizing, blur, noise and re-encoding: 2
    to ``chain_max`` of them in random order, each drawn in the ratio of the probabilities, so that
    a picture may be resized and re-encoded again and again.
    """

    flip_p: Share = 0.5
    turn_p: Share = 0.0  # by one to three quarter turns: what is up and down says nothing
    colour_p: Share = 0.0  # so that neither palette nor exposure tells the class
    colour_max: Annotated[float, Field(ge=0, lt=1)] = 0.25  # how far each gain may be from 1
    resize_p: Share = 0.4
    resize_min: Positive = 0.7  # in a chain: of every stage, relative to the native pixels
    resize_max: Positive = 1.25
    resize_filters: Annotated[tuple[ResizeFilter, ...], Field(min_length=1)] = (
        "bilinear",
        "bicubic",
        "lanczos",
    )
    blur_p: Share = 0.1
    blur_sigma_max: Positive = 1.0
    noise_p: Share = 0.0
    noise_sigma_max: NotNegative = 4.0  # on the scale of 0 to 255
    jpeg_p: Share = 0.6
    webp_p: Share = 0.15
    quality_min: Annotated[int, Field(ge=1, le=100)] = 60
    quality_max: Annotated[int, Field(ge=1, le=100)] = 100
    chain_p: Share = 0.0
    chain_max: Annotated[int, Field(ge=2, le=8)] = 4

    @property
    def chain_weights(self) -> dict[str, float]:
        """How often a chain draws each operation, relative to the others."""
        names = ("resize", "blur", "noise", "jpeg", "webp")
        return {name: getattr(self, f"{name}_p") for name in names}

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.resize_min > self.resize_max or self.quality_min > self.quality_max:
            raise ValueError("a minimum is above its maximum")
        if self.jpeg_p + self.webp_p > 1:
            raise ValueError("jpeg_p + webp_p must not exceed 1")
        if self.chain_p > 0 and not any(self.chain_weights.values()):
            raise ValueError("chain_p needs a positive resize_p, blur_p, noise_p, jpeg_p or webp_p")
        return self


SPLITS = ("train", "validation", "calibration", "threshold", "test")
_SELECTOR = re.compile(r"[@:]|\[[^\]]*:")  # folder[:-40], folder@prompt=0/4, repo:owner/*


def _whole_folder(name: str) -> str:
    if _SELECTOR.search(name):
        raise ValueError(
            f"{name!r}: parts of a folder were removed from the configuration. Write a manifest "
            "(python -m trainer data manifest), divide it (data split), and set data.manifest"
        )
    return name


FolderPattern = Annotated[str, AfterValidator(_whole_folder)]


class SplitConfig(Part):
    """The folders of one split, by name or glob: of ``real/`` and of ``fake/``."""

    real: tuple[FolderPattern, ...] = ()
    fake: tuple[FolderPattern, ...] = ()


class SplitsConfig(Part):
    """Which folders serve what; a folder serves one split.

    ``train`` moves weights, ``validation`` chooses the epoch, ``calibration`` fits the score,
    ``threshold`` (real images) sets the operating points, ``test`` decides nothing.
    """

    train: SplitConfig = SplitConfig()
    validation: SplitConfig = SplitConfig()
    calibration: SplitConfig = SplitConfig()
    threshold: SplitConfig = SplitConfig()
    test: SplitConfig = SplitConfig()


class DataConfig(Part):
    """Where the images are and how they are divided."""

    removed: ClassVar[Mapping[str, str]] = {
        "regenerators": "make the pairs with python -m trainer fakes, and name their folder in data.pairs"
    }

    roots: tuple[Path, ...] = ()
    # A CSV file with the columns path and split (python -m trainer data manifest). The images that it
    # lists have the split of their row, and the others that of their folder in `splits`.
    manifest: Path | None = None
    splits: SplitsConfig = SplitsConfig()
    hold_out: tuple[str, ...] = ()  # generators of which every image is in the test split
    exclude: tuple[str, ...] = ()  # globs of "real/folder/file" that no split may hold
    allow_shared: tuple[Literal["repo", "prompt"], ...] = ()  # what two splits may have in common
    region_px: Count = 512  # the central native pixels of an image that training keeps in memory
    strict: bool = False  # warnings about the data are errors; else they are printed
    pairs: tuple[Path, ...] = ()  # folders of content-matched fakes (python -m trainer fakes)
    pair_families: tuple[str, ...] = ()  # patterns of the regenerators to train on; empty is all


class DetectorConfig(Part):
    """The student: a timm backbone, its noise head and its attention gate."""

    removed: ClassVar[Mapping[str, str]] = {
        "view": "leave it out; the backbone always sees the picture itself",
        "levels": "leave it out; all feature maps of the backbone are used",
        "head": "leave it out; dense_stem is the only noise head",
    }

    backbone: str = "tf_efficientnet_lite0"
    weights: str = ""  # "" random; a file; or "package:NAME/FILE" inside an installed package
    head_width: Count = 32
    gate_drop_p: Share = 0.5
    dropout_p: Share = 0.1
    mean: tuple[Share, Share, Share] = (0.5, 0.5, 0.5)
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)


class LossConfig(Part):
    """BCE + lambda_noise * MSE + lambda_glob * (1 - normalised entropy)."""

    lambda_noise: NotNegative = 1.0
    lambda_glob: NotNegative = 0.05
    tau: Positive = 1.0


# One change of a picture: a name and its strength, such as jpeg75 or resize0.5.
OPERATION = re.compile(r"(?P<name>jpeg|webp|blur|resize|margin|longer)(?P<value>\d+(?:\.\d+)?)")
_CHANGES = (
    "jpeg95",
    "jpeg90",
    "jpeg75",
    "jpeg50",
    "jpeg30",
    "webp90",
    "webp75",
    "webp50",
    "blur0.5",
    "blur1",
    "blur2",
    "resize0.5",
    "resize0.75",
    "resize1.5",
    "resize0.5+jpeg75",
    "jpeg75+resize0.75+jpeg90",
    "margin0.03+resize0.8+jpeg85",  # a screenshot: cut, shown smaller, saved again
)


class EvaluationPairsConfig(Part):
    """Photographs beside their own regenerations, as ``python -m trainer fakes`` writes them."""

    roots: tuple[Path, ...] = ()  # folders with a pairs.jsonl; none is data.pairs
    families: tuple[str, ...] = ()  # of regenerators; empty is all


class EvaluationConfig(Part):
    """What is measured, and how often it is resampled. Nothing here is seen by training."""

    resamples: Count = 1000  # of the bootstrap
    seed: int = 0  # of its draws
    changes: tuple[str, ...] = (
        _CHANGES  # robustness: docs/concepts/evaluation.md says what each does
    )
    robustness_per_folder: Annotated[int, Field(ge=0)] = 0  # images of a folder; 0 is all
    pairs: EvaluationPairsConfig = EvaluationPairsConfig()
    photo_like: tuple[str, ...] = ()  # generators whose pictures look like photographs
    photographs: tuple[str, ...] = ()  # the real folders beside them; empty is all of the split
    photo_like_px: Annotated[int, Field(ge=64)] = 512  # the longer side, of both classes
    out_of_domain: tuple[str, ...] = ()  # patterns of real folders of other kinds: alarms alone
    probe_limit: Share = 0.6  # balanced accuracy of a shortcut that makes an evaluation void
    strict: bool = False  # fail where an evaluation is void, in place of a warning
    attention_images: Annotated[int, Field(ge=0, le=16)] = 8

    @model_validator(mode="after")
    def _changes_known(self) -> Self:
        for change in self.changes:
            for step in change.split("+"):
                if OPERATION.fullmatch(step) is None:
                    raise ValueError(
                        f"unknown change {step!r}: use jpegQ, webpQ, blurSIGMA, resizeFACTOR, "
                        "marginSHARE or longerPX, joined by +"
                    )
        return self


DEFAULT_SET = "default"
_SET_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")  # ends an id, and is typed into a setting
Rate = Annotated[float, Field(gt=0, le=1)]


class CardConfig(Part):
    """The words of the model card that no measurement can give."""

    summary: str = "A detector of AI-generated images."
    data: str = "See the folders below for the sources."
    shown: str = ""  # what the figures do and do not show


class RatesConfig(Part):
    """The false-positive rates that the two thresholds of a set may have at most."""

    review_fpr: Rate
    block_fpr: Rate
    # Patterns of the threshold split's folders to measure on; none is all but those of evaluation.out_of_domain.
    real: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.block_fpr > self.review_fpr:
            raise ValueError("block_fpr must be at most review_fpr: what blocks is stricter")
        return self


class ExportConfig(Part):
    """The graph and the bundle that leave the trainer."""

    removed: ClassVar[Mapping[str, str]] = {
        "allow_unlearnt_target": "leave it out (export.strict = true refuses a run that is not ANL)"
    }

    name: str = "reference"
    version: str = "0.1.0"
    crop_px: Annotated[int, Field(ge=32)] = 224
    crop_policy: CropPolicy = "center"
    max_crops: MaxCrops = 1
    gate: Literal["off", "on"] = "off"
    batch_opt: Count = 8
    batch_max: Count = 32
    tolerance: Positive = 1e-3  # the largest difference of a logit, fp32
    # The folder of an evaluated run by the same recipe that left its test generators out of training,
    # for the card of a bundle that leaves none out.
    development: str = ""
    # Refuse to export a run that is not ANL; else the card says so.
    strict: bool = False
    review_fpr: Rate = 0.05  # of the default threshold set
    block_fpr: Rate = 0.01
    threshold_sets: dict[str, RatesConfig] = Field(default_factory=dict)  # others, by name
    calibration: Literal["temperature", "platt"] = "platt"
    card: CardConfig = CardConfig()

    @model_validator(mode="after")
    def _as_many_as_the_policy_takes(self) -> Self:
        refuse_other_count(self.crop_policy, self.max_crops)
        return self

    @model_validator(mode="after")
    def _sets_are_named(self) -> Self:
        for name in self.threshold_sets:
            if name == DEFAULT_SET or not _SET_NAME.fullmatch(name):
                raise ValueError(
                    f"threshold_sets cannot name a set {name!r}: use lower-case letters, digits and "
                    f"hyphens, 32 at most, and not {DEFAULT_SET!r}, which review_fpr and block_fpr set"
                )
        self.rates()
        return self

    @property
    def preprocess(self) -> PreprocessSpec:
        """The crops of the worker, which validation uses too."""
        return PreprocessSpec(
            version=PREPROCESS_VERSION,
            crop_policy=self.crop_policy,
            crop_px=self.crop_px,
            max_crops=self.max_crops,
        )

    def rates(self) -> dict[str, RatesConfig]:
        """The configured rates of each threshold set by name, the default set first."""
        default = RatesConfig(review_fpr=self.review_fpr, block_fpr=self.block_fpr)
        return {DEFAULT_SET: default, **self.threshold_sets}


TeacherKind = Literal[
    "auto", "unet2d", "keras-ddpm", "unet2d-condition", "sd3", "flux", "random-tiny"
]


class TeacherConfig(Part):
    """The frozen diffusion model, and which of its noise the detector learns."""

    kind: TeacherKind = "auto"  # auto reads it from the folder; any other is checked against it
    source: str = ""  # a diffusers folder or hub id; empty for random-tiny
    variant: str = ""  # of the weights' file names, as diffusers has it: "fp16"
    dtype: Literal["fp32", "bf16"] = "fp32"  # of the arithmetic; targets are fp32 either way
    timestep_index: Annotated[int, Field(ge=0)] = 0  # 0 is the paper's t = 1
    inject_noise: bool = False  # x_t = x, or x_t of the scheduler's forward process
    # What the network sees at once. None: its own size in pixel space, the whole crop for latents.
    tile_px: Annotated[int, Field(ge=8)] | None = None
    tile_overlap_px: Annotated[int, Field(ge=0)] = 16
    window_px: Annotated[int, Field(ge=0)] = 0  # the part of a crop that has a target; 0 is all
    share: Share = 1.0  # of a batch that has targets
    repeat_epochs: Annotated[int, Field(ge=0)] = 0  # the crops with targets recur; 0 is never
    repeat_steps: Annotated[int, Field(ge=0)] = 0  # the same, counted in steps; before epochs
    batch: Count = 8
    statistics_crops: Annotated[int, Field(ge=2)] = 64  # measured for the standardisation
    control: Literal["none", "shuffled", "highpass"] = "none"  # controls of the claim

    @model_validator(mode="after")
    def _source_given(self) -> Self:
        if self.kind != "random-tiny" and not self.source:
            raise ValueError("source is needed: a diffusers folder, or a hub id")
        if self.tile_px is not None and self.tile_overlap_px >= self.tile_px:
            raise ValueError("tile_overlap_px must be below tile_px")
        return self


class NetworkConfig(Part):
    """The U-Net, diffusers' ``UNet2DModel``."""

    resolution_px: Annotated[int, Field(ge=16, multiple_of=8)] = 32
    widths: Annotated[tuple[Count, ...], Field(min_length=2)] = (32, 64, 64)
    blocks: Count = 1  # residual blocks a level
    attention_levels: Annotated[int, Field(ge=0)] = 0  # the last so many levels attend
    groups: Count = 8  # of each group norm

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.resolution_px % 2 ** (len(self.widths) - 1):
            raise ValueError("resolution_px must be halved once for each width after the first")
        if any(width % self.groups for width in self.widths):
            raise ValueError("every width must be a multiple of groups")
        if self.attention_levels > len(self.widths):
            raise ValueError("attention_levels is more than there are widths")
        return self


class ScheduleConfig(Part):
    """How noise grows with the index; the defaults are those of the converted DDPM."""

    steps: Annotated[int, Field(ge=2)] = 300
    beta: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "squaredcos_cap_v2"


class OptimisationConfig(Part):
    """The loop. An index is drawn as floor(steps * u ** early_power), u uniform in [0, 1)."""

    steps: Count = 1000
    batch: Count = 32
    lr: Positive = 1e-3
    warmup_steps: Count = 50
    weight_decay: NotNegative = 0.0
    grad_clip: Positive = 1.0
    ema_decay: Share = 0.995
    early_power: Annotated[float, Field(ge=1)] = 1.0  # 1 is uniform; more favours little noise
    checkpoint_every_steps: Count = 100
    measure_every_steps: Count = 100
    heldout_crops: Count = 128
    middle_index: Annotated[int, Field(ge=1)] = 50  # measured beside index 0


class TeacherTraining(Part):
    """The configuration of ``python -m trainer teacher``.

    Of the data, the real images of the splits train and validation are used.
    """

    seed: int = 0
    threads: Count = 1
    data: DataConfig
    network: NetworkConfig = NetworkConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: OptimisationConfig = OptimisationConfig()

    @model_validator(mode="after")
    def _middle_is_a_step(self) -> Self:
        if self.train.middle_index >= self.schedule.steps:
            raise ValueError("train.middle_index must be below schedule.steps")
        return self


CountOrNone = Annotated[int, Field(ge=0)]  # 0 means "not set"; the option says what applies then


class TrainConfig(Part):
    """The schedule of a training, and the crops it draws."""

    removed: ClassVar[Mapping[str, str]] = {
        "frozen_norms": "leave it out; the norms follow the training data"
    }

    start_from: str = ""  # an earlier run's folder, or a bundle, whose weights come first
    crop_px: Annotated[int, Field(ge=32, multiple_of=8)] = 128
    epochs: Count = 10
    steps: CountOrNone = 0  # used in place of epochs, which mean little once pairs are drawn
    batch: Annotated[int, Field(ge=4, multiple_of=4)] = 32  # of each process
    accumulate: Count = 1  # batches to a step: the gradient is the mean over them
    paired_share: Share = 0.5  # of the fakes of a batch that are regenerations of its photographs
    shared_softness_p: Share = 0.0  # of the pairs that are brought to one radial power spectrum
    lr: Positive = 5e-4
    head_lr_factor: Positive = 6.0  # the noise head starts from nothing, the backbone does not
    weight_decay: NotNegative = 0.02
    warmup_steps: CountOrNone = 50
    grad_clip: Positive = 5.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0  # 0: no moving average
    precision: Literal["fp32", "bf16"] = "fp32"  # of the student; the loss is fp32 always
    data_workers: Count = 1  # threads that make batches ahead; they change no result
    checkpoint_every_steps: Count = 50
    validate_every_steps: CountOrNone = 0  # 0 is after each epoch
    keep: Literal["best", "last"] = (
        "best"  # which of the validated weights; the last step is always validated
    )
    # Whether pairs of validation photographs help to choose the step.
    validate_pairs: bool = False
    patience: CountOrNone = 0  # validations without a better one that end a run; 0 never ends it
    min_explained_variance: Share = 0.30  # a run that explains less of the noise is not ANL

    @model_validator(mode="after")
    def _patience_keeps_the_best(self) -> Self:
        if self.patience and self.keep == "last":
            raise ValueError(
                "train.patience waits for a better validation, and train.keep = 'last' keeps the end of a "
                "run of fixed length: set only one of them"
            )
        return self


class Config(Part):
    """A whole run."""

    seed: int = 0
    threads: Count = 2
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    teacher: TeacherConfig
    detector: DetectorConfig = DetectorConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        crop_px, window_px = self.train.crop_px, self.teacher.window_px
        if window_px > crop_px or window_px % 8:
            raise ValueError("teacher.window_px must be a multiple of 8, at most train.crop_px")
        if (self.teacher.tile_px or 0) > (window_px or crop_px):
            raise ValueError("teacher.tile_px must fit into the window (or the crop)")
        return self

    @property
    def window_px(self) -> int:
        """The side of the part of a crop that has a target."""
        return self.teacher.window_px or self.train.crop_px


def parse_config(data: bytes, environment: Mapping[str, str], where: str = "config") -> Config:
    """Read a configuration; ``${NAME}`` in its strings is taken from the environment."""
    return parse_toml(Config, data, environment, where)


def read_config(path: Path, environment: Mapping[str, str]) -> Config:
    """Read a configuration file."""
    return read_toml(Config, path, environment)


VariantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
# By dotted name: "loss.lambda_noise" = 0.0
Changes = dict[str, bool | int | float | str | tuple[str, ...]]


class RowConfig(Part):
    """A question of the study: variants that are compared with a baseline."""

    name: VariantName
    question: str
    baseline: VariantName
    variants: Annotated[tuple[VariantName, ...], Field(min_length=1)]


class StudyConfig(Part):
    """A grid of trainings: every variant of a row, without each fold, with each seed."""

    base: Path  # a training configuration; relative to the study's own file
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    # Generators that leave training together and are the test's fakes; none keeps the base's splits.
    folds: tuple[Annotated[tuple[VariantName, ...], Field(min_length=1)], ...] = ()
    variants: dict[VariantName, Changes]
    rows: Annotated[tuple[RowConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        generators = [generator for fold in self.folds for generator in fold]
        if len(set(generators)) < len(generators):
            raise ValueError("folds: a generator may be in one fold only")
        if len({row.name for row in self.rows}) < len(self.rows):
            raise ValueError("rows: two rows have the same name")
        for row in self.rows:
            for variant in (row.baseline, *row.variants):
                if variant not in self.variants:
                    raise ValueError(f"rows: {row.name} names {variant!r}, add it to variants")
        return self

    def selected(self, names: tuple[str, ...]) -> tuple[RowConfig, ...]:
        """The rows of these names in the study's order; no name selects all rows."""
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise ConfigError(f"unknown row {name!r}: choose from {', '.join(known)}")
        return tuple(row for row in self.rows if not names or row.name in names)


def read_study(path: Path) -> StudyConfig:
    """Read a study file.

    ``${NAME}`` in a change stays as written: the training process of a cell resolves it.

    Raises:
        ConfigError: the file cannot be read or is not valid.
    """
    data = _bytes_of(path)
    as_written = {name: f"${{{name}}}" for name in _VARIABLE.findall(data.decode(errors="ignore"))}
    study = parse_toml(StudyConfig, data, as_written, str(path))
    return study.model_copy(update={"base": path.parent / study.base})


FamilyName = Annotated[str, Field(pattern=r"[a-z0-9][a-z0-9_.-]*")]


class PhotographsConfig(Part):
    """The photographs, and which part of each is regenerated."""

    roots: tuple[Path, ...] = ()
    folders: tuple[str, ...] = ("*",)  # of real/, as in the splits of a training run
    exclude: tuple[str, ...] = ()
    images_per_folder: Count = 1000  # evenly spread by file name
    region_px: Annotated[int, Field(ge=64, multiple_of=16)] = 224
    # A large photograph may be reduced by one of these first (drawn by its digest): that weakens the
    # traces of its own JPEG, as in shared pictures.
    scales: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0,)
    # Which regions of a photograph: 0 is its centre, 1 to 4 are its corners, each at the next scale.
    regions: Annotated[tuple[Annotated[int, Field(ge=0, le=4)], ...], Field(min_length=1)] = (0,)


class TaefConfig(Part):
    """The tiny autoencoder of FLUX.2's latents."""

    kind: Literal["taef2"]
    name: FamilyName
    weights: Path  # a folder with taef2_encoder.pth and taef2_decoder.pth
    latent_noise: NotNegative = 0.0  # the most, in standard deviations of the picture's latents
    images: Count = 1_000_000


class UpscalerConfig(Part):
    """A super-resolver in ncnn's format."""

    kind: Literal["ncnn"]
    name: FamilyName
    param: str  # a file, or package:NAME/FILE
    factor: Annotated[int, Field(ge=2, le=8)] = 4
    pad_px: Annotated[int, Field(ge=0)] = 0  # what the network cuts off each side of its input
    images: Count = 1_000_000


class DiffusionConfig(Part):
    """A diffusion model: noise is added to the photograph and removed by the model."""

    kind: Literal["diffusion"]
    name: FamilyName
    source: str  # a diffusers folder or hub id, of any family that can be a teacher
    variant: str = ""  # of the weights' file names, such as fp16
    # How far into the schedule a photograph is taken, as a share of it; drawn for each photograph
    # between the two. In latent space, 0 and 0 applies the autoencoder alone.
    strength_min: Annotated[float, Field(ge=0, lt=1)] = 0.1
    strength_max: Annotated[float, Field(ge=0, lt=1)] = 0.3
    steps: Count = 10  # of the way back
    images: Count = 1_000_000

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.strength_min > self.strength_max:
            raise ValueError("strength_min is over strength_max")
        return self


FamilyConfig = Annotated[TaefConfig | UpscalerConfig | DiffusionConfig, Field(discriminator="kind")]


class FakesConfig(Part):
    """A set of content-matched fakes."""

    threads: Count = 1
    photographs: PhotographsConfig = PhotographsConfig()
    families: Annotated[tuple[FamilyConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [family.name for family in self.families]
        if len(set(names)) < len(names):
            raise ValueError("two families have the same name")
        return self
