"""The student: backbone, noise head, attention gate."""

from trainer.detector.errors import DetectorError
from trainer.detector.gate import Gate, pooled
from trainer.detector.head import (
    HALO_PX,
    PIXELS,
    NoiseHead,
    TargetShape,
    dense_stem,
    local_mean,
    local_residual,
    target_of,
)
from trainer.detector.student import Detector, Output, seen
from trainer.detector.weights import load_backbone
from trainer.detector.windows import Windows, cut

__all__ = [
    "HALO_PX",
    "PIXELS",
    "Detector",
    "DetectorError",
    "Gate",
    "NoiseHead",
    "Output",
    "TargetShape",
    "Windows",
    "cut",
    "dense_stem",
    "load_backbone",
    "local_mean",
    "local_residual",
    "pooled",
    "seen",
    "target_of",
]
