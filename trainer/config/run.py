"""A whole run, and how it is read: a TOML file, checked.

In: the bytes of a TOML file and the environment that its ``${NAME}`` values may refer to.
Out: a frozen, validated ``Config``. Errors: ``ConfigError``, which says what to do.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import ValidationError, model_validator

from trainer.config.augment import AugmentConfig
from trainer.config.base import ConfigError, Count, Part
from trainer.config.data import DataConfig
from trainer.config.detector import DetectorConfig, LossConfig
from trainer.config.export import ExportConfig
from trainer.config.teacher import TeacherConfig
from trainer.config.train import TrainConfig

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


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
