"""The teacher's noise for a crop: computed once, kept on disk, standardised.

In: crops [B, S, S, 3] uint8, after every augmentation. Out: eps fp32 (``TargetShape``), standardised
by the statistics of the data, per channel. Errors: those of the teacher.

A target is stored under the digest of the augmented pixels and the teacher's id, so it cannot be
paired with another crop.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import TeacherConfig
from trainer.detector import PIXELS, TargetShape
from trainer.teachers.frozen import Teacher
from trainer.training.checkpoint import Statistics

_SMALLEST_STD = 1e-6


class TargetStore:
    """Targets by crop; each is computed once."""

    def __init__(self, teacher: Teacher, config: TeacherConfig, folder: Path) -> None:
        # Shuffled targets are the teacher's own, dealt out anew: they share what was computed.
        computed = "none" if config.control == "shuffled" else config.control
        kind = f"{teacher.teacher_id}-{computed}"
        self._folder = folder / hashlib.sha256(kind.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "teacher.txt").write_text(f"{kind}\n")
        self._teacher, self._config = teacher, config
        self.computed = 0
        filtered = config.control == "highpass"
        self.shape = PIXELS if filtered else TargetShape(teacher.channels, teacher.stride)

    def to(self, device: torch.device) -> None:
        """Let the teacher work on a device; targets are given and kept on the CPU."""
        if isinstance(self._teacher, nn.Module):
            self._teacher.to(device)

    def raw(self, image_BHWC: NDArray[np.uint8]) -> Tensor:
        """Eps [B, channels, S / stride, S / stride] as the teacher gives it, fp32."""
        digests = [hashlib.sha256(one.tobytes()).hexdigest() for one in image_BHWC]
        paths = [self._folder / f"{digest}.npy" for digest in digests]
        missing = [index for index, path in enumerate(paths) if not path.exists()]
        for start in range(0, len(missing), self._config.batch):
            chunk = missing[start : start + self._config.batch]
            seeds = [int(digests[index][:15], 16) for index in chunk]
            for index, eps in zip(chunk, self._compute(image_BHWC[chunk], seeds), strict=True):
                _save(paths[index], eps.numpy())
        self.computed += len(missing)
        return torch.stack([torch.from_numpy(np.load(path)) for path in paths])

    def _compute(self, image_BHWC: NDArray[np.uint8], seeds_B: list[int]) -> Tensor:
        x_BCHW = torch.from_numpy(image_BHWC.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
        if self._config.control == "highpass":
            return _highpass(x_BCHW)
        return self._teacher.noise(x_BCHW, seeds_B)

    def standardised(self, image_BHWC: NDArray[np.uint8], statistics: Statistics) -> Tensor:
        """Targets of mean 0 and variance 1 over the data; shuffled where the control says so."""
        eps_BCHW = standardise(self.raw(image_BHWC), statistics)
        return of_another(eps_BCHW) if self._config.control == "shuffled" else eps_BCHW


def of_another(eps_BCHW: Tensor) -> Tensor:
    """Control: targets of other crops. Does the noise have to be that of the same picture?

    A batch is drawn real, fake, real, fake; the two may be a photograph and its regeneration. A
    crop never gets the noise of its partner, and in half of the cases that of the other class. So
    the noise reveals neither content nor class. Two crops can only change places.
    """
    order = torch.arange(len(eps_BCHW)).roll(2)
    for start in range(0, len(order), 4):
        order[start : start + 2] = order[start : start + 2].flip(0)
    return eps_BCHW[order]


def _highpass(x_BCHW: Tensor) -> Tensor:
    """Control: x minus its 3x3 mean. Does a cheap filter do as well as a teacher?"""
    padded = functional.pad(x_BCHW, (1, 1, 1, 1), mode="reflect")
    return x_BCHW - functional.avg_pool2d(padded, 3, stride=1)


def _save(path: Path, eps_CHW: NDArray[np.float32]) -> None:
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.save(file, eps_CHW, allow_pickle=False)
    partial.replace(path)


def measure(eps_BCHW: Tensor) -> Statistics:
    """The statistics of raw targets."""
    std_C = eps_BCHW.std(dim=(0, 2, 3)).clamp_min(_SMALLEST_STD)
    return Statistics(
        tuple(float(one) for one in eps_BCHW.mean(dim=(0, 2, 3))),
        tuple(float(one) for one in std_C),
    )


def standardise(eps_BCHW: Tensor, statistics: Statistics) -> Tensor:
    """(eps - mean) / std per channel; nothing is clipped."""
    mean_C11 = torch.tensor(statistics.mean_C)[:, None, None]
    std_C11 = torch.tensor(statistics.std_C)[:, None, None]
    return (eps_BCHW - mean_C11) / std_C11


def explained_variance(predicted: Sequence[Tensor], target: Sequence[Tensor]) -> float:
    """1 - MSE / variance over all crops given: 0 for a constant, 1 for a perfect student."""
    truth, guess = torch.cat(list(target)), torch.cat(list(predicted))
    variance = (truth - truth.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
    return float(1 - (truth - guess).square().mean() / variance)
