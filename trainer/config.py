"""Every choice of a training run, named: a TOML file, read and checked.

In: the bytes of a TOML file and the environment that its ``${NAME}`` values may refer to.
Out: a frozen, validated ``Config``. Errors: ``ConfigError``, which says what to do.

What each ANL option means, and which are our reading of the method, is in ``docs/anl.md``.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
SPLITS = ("train", "validation", "calibration", "threshold", "test")

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class ConfigError(Exception):
    """A configuration that cannot be used; the message says what to change."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SplitConfig(_Part):
    """The folders of one split, as ``name``, a glob, or ``name[start:stop:step]`` by file name."""

    real: tuple[str, ...] = ()
    fake: tuple[str, ...] = ()


class SplitsConfig(_Part):
    """Which folders serve what; a file must never serve two of them.

    ``train`` moves weights, ``validation`` chooses the epoch, ``calibration`` fits the score,
    ``threshold`` (real images) sets the operating points, ``test`` decides nothing.
    """

    train: SplitConfig
    validation: SplitConfig = SplitConfig()
    calibration: SplitConfig = SplitConfig()
    threshold: SplitConfig = SplitConfig()
    test: SplitConfig = SplitConfig()


class RegeneratorConfig(_Part):
    """An autoencoder that turns training photographs into content-matched fakes."""

    kind: Literal["taef2"]
    weights: Path  # a folder with taef2_encoder.pth and taef2_decoder.pth
    images: Count = 300  # how many training photographs, evenly spread over the folders
    region_px: Annotated[int, Field(ge=16, multiple_of=8)] = 168


class DataConfig(_Part):
    """Where the images are and how they are divided."""

    roots: tuple[Path, ...] = ()
    exclude: tuple[str, ...] = ()  # globs of "real/folder/file" that no split may hold
    region_px: Count = 512  # the central native pixels of an image that training keeps in memory
    strict: bool = False  # a corrupt image stops the run, instead of being named and counted
    splits: SplitsConfig
    regenerators: tuple[RegeneratorConfig, ...] = ()


class AugmentConfig(_Part):
    """What happens to every crop, real and fake alike (a pair shares every draw)."""

    flip_p: Share = 0.5
    resize_p: Share = 0.4
    resize_min: Positive = 0.7
    resize_max: Positive = 1.25
    blur_p: Share = 0.1
    blur_sigma_max: Positive = 1.0
    jpeg_p: Share = 0.6
    webp_p: Share = 0.15
    quality_min: Annotated[int, Field(ge=1, le=100)] = 60
    quality_max: Annotated[int, Field(ge=1, le=100)] = 100

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.resize_min > self.resize_max or self.quality_min > self.quality_max:
            raise ValueError("a minimum is above its maximum")
        if self.jpeg_p + self.webp_p > 1:
            raise ValueError("jpeg_p + webp_p must not exceed 1")
        return self


class TeacherConfig(_Part):
    """The frozen diffusion model, and which of its noise the detector learns."""

    kind: Literal["unet2d", "keras-ddpm", "random-tiny"]
    source: str = ""  # a diffusers folder or hub id; empty for random-tiny
    timestep_index: Annotated[int, Field(ge=0)] = 0  # 0 is the paper's t = 1
    inject_noise: bool = False  # x_t = x, or x_t = scheduler.add_noise(x, noise, t)
    tile_px: Annotated[int, Field(ge=8)] = 64
    tile_overlap_px: Annotated[int, Field(ge=0)] = 16
    window_px: Annotated[int, Field(ge=0)] = 0  # the part of a crop that has a target; 0 is all
    share: Share = 1.0  # of a batch that has targets
    repeat_epochs: Annotated[int, Field(ge=0)] = 0  # the crops with targets recur; 0 is never
    batch: Count = 8
    statistics_crops: Annotated[int, Field(ge=2)] = 64  # measured for the standardisation
    control: Literal["none", "shuffled", "highpass"] = "none"  # controls of the claim

    @model_validator(mode="after")
    def _source_given(self) -> Self:
        if self.kind != "random-tiny" and not self.source:
            raise ValueError("source is needed: a diffusers folder, or a hub id")
        if self.tile_overlap_px >= self.tile_px:
            raise ValueError("tile_overlap_px must be below tile_px")
        return self


class DetectorConfig(_Part):
    """The student: a timm backbone, its noise head and its attention gate."""

    backbone: str = "tf_efficientnet_lite0"
    weights: str = ""  # "" random; a file; or "package:NAME/FILE" inside an installed package
    head: Literal["dense_stem", "upsample"] = "dense_stem"
    head_width: Count = 32
    gate_drop_p: Share = 0.5
    dropout_p: Share = 0.1
    mean: tuple[Share, Share, Share] = (0.5, 0.5, 0.5)
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)


class LossConfig(_Part):
    """BCE + lambda_noise * MSE + lambda_glob * (1 - normalised entropy)."""

    lambda_noise: NotNegative = 1.0
    lambda_glob: NotNegative = 0.05
    tau: Positive = 1.0


class TrainConfig(_Part):
    """How long, how fast, on which crops."""

    crop_px: Annotated[int, Field(ge=32, multiple_of=8)] = 128
    epochs: Count = 10
    batch: Annotated[int, Field(ge=4, multiple_of=4)] = 32
    paired_share: Share = 0.5  # of the fakes of a batch that are regenerations of its photographs
    lr: Positive = 5e-4
    head_lr_factor: Positive = 6.0  # the noise head starts from nothing, the backbone does not
    weight_decay: NotNegative = 0.02
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    grad_clip: Positive = 5.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0  # 0 is no moving average
    checkpoint_every_steps: Count = 50


class CardConfig(_Part):
    """The words of the model card that no measurement can give."""

    summary: str = "A detector of AI-generated images."
    data: str = "See the folders below for the sources."
    shown: str = ""  # what the figures do and do not show


class ExportConfig(_Part):
    """The graph and the bundle that leave the trainer."""

    name: str = "reference"
    version: str = "0.1.0"
    crop_px: Annotated[int, Field(ge=32)] = 224
    crop_policy: Literal["center", "grid"] = "center"
    max_crops: Count = 1
    gate: Literal["off", "on"] = "off"
    batch_opt: Count = 8
    batch_max: Count = 32
    tolerance: Positive = 1e-3  # the largest difference of a logit, fp32
    review_fpr: Share = 0.05
    block_fpr: Share = 0.01
    calibration: Literal["temperature", "platt"] = "platt"
    card: CardConfig = CardConfig()


class Config(_Part):
    """A whole run."""

    seed: int = 0
    threads: Count = 2
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    teacher: TeacherConfig
    detector: DetectorConfig = DetectorConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        crop_px, window_px = self.train.crop_px, self.teacher.window_px
        if window_px > crop_px or window_px % 8:
            raise ValueError("teacher.window_px must be a multiple of 8, at most train.crop_px")
        if self.teacher.tile_px > (window_px or crop_px):
            raise ValueError("teacher.tile_px must fit into the window (or the crop)")
        return self

    @property
    def window_px(self) -> int:
        """The side of the part of a crop that has a target."""
        return self.teacher.window_px or self.train.crop_px


def parse_config(data: bytes, environment: Mapping[str, str], where: str = "config") -> Config:
    """Read a configuration; ``${NAME}`` in its strings is taken from the environment."""
    try:
        tree = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error
    try:
        return Config.model_validate(_substituted(tree, environment, where))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in one['loc']) or 'the whole'}: {one['msg']}"
            for one in error.errors(include_url=False)
        )
        raise ConfigError(f"{where} is not valid: {problems}") from error


def read_config(path: Path, environment: Mapping[str, str]) -> Config:
    """Read a configuration file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): name a TOML file") from error
    return parse_config(data, environment, str(path))


def _substituted(value: object, environment: Mapping[str, str], where: str) -> object:
    if isinstance(value, dict):
        return {key: _substituted(one, environment, where) for key, one in value.items()}
    if isinstance(value, list):
        return [_substituted(one, environment, where) for one in value]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environment:
            raise ConfigError(f"{where} refers to ${{{name}}}: set that environment variable")
        return environment[name]

    return _VARIABLE.sub(lookup, value)
