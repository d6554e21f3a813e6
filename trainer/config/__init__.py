"""Every choice of a training run, named: one file of this package for each part of it.

What each ANL option means, and which are our reading of the method, is in ``docs/concepts/anl.md``.
"""

from trainer.config.augment import AugmentConfig, ResizeFilter
from trainer.config.base import Part
from trainer.config.data import SPLITS, DataConfig, SplitConfig, SplitsConfig
from trainer.config.detector import DetectorConfig, LossConfig
from trainer.config.evaluation import EvaluationConfig, EvaluationPairsConfig
from trainer.config.export import DEFAULT_SET, CardConfig, ExportConfig, RatesConfig
from trainer.config.run import Config, parse_config, read_config
from trainer.config.teacher import TeacherConfig
from trainer.config.train import TrainConfig
from trainer.errors import ConfigError

__all__ = [
    "DEFAULT_SET",
    "SPLITS",
    "AugmentConfig",
    "CardConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "DetectorConfig",
    "EvaluationConfig",
    "EvaluationPairsConfig",
    "ExportConfig",
    "LossConfig",
    "Part",
    "RatesConfig",
    "ResizeFilter",
    "SplitConfig",
    "SplitsConfig",
    "TeacherConfig",
    "TrainConfig",
    "parse_config",
    "read_config",
]
