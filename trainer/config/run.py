"""A whole run, and how it is read: a TOML file, checked.

In: the bytes of a TOML file and the environment. Out: a frozen, validated ``Config``. Errors:
``ConfigError``, which says what to do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import model_validator

from trainer.config.augment import AugmentConfig
from trainer.config.base import Count, Part
from trainer.config.data import DataConfig
from trainer.config.detector import DetectorConfig, LossConfig
from trainer.config.evaluation import EvaluationConfig
from trainer.config.export import ExportConfig
from trainer.config.teacher import TeacherConfig
from trainer.config.toml import parse_toml, read_toml
from trainer.config.train import TrainConfig


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
