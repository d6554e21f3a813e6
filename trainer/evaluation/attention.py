"""Where the student itself finds noise: |eps_hat| over pictures of the evaluated set.

In: the detector with its noise head, pictures. Out: an ``AttentionMap`` for each. No errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from trainer.data.augment import center_crop
from trainer.data.dataset import Picture
from trainer.detector import Detector


@dataclass(frozen=True)
class AttentionMap:
    """A central crop [S, S, 3] uint8 and the magnitude of the predicted noise there, [S, S]."""

    key: str
    label: int
    crop_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    energy_HW: NDArray[np.float32]  # noqa: N815  the suffix is the tensor's shape


def spread(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """Half real, half generated; of different folders as far as there are any."""
    chosen = []
    for label in (0, 1):
        folders: dict[str, list[Picture]] = {}
        for one in pictures:
            if one.source.label == label:
                folders.setdefault(one.source.folder, []).append(one)
        queues = [folders[name] for name in sorted(folders)]
        rounds = max((len(one) for one in queues), default=0)
        in_turn = [one[turn] for turn in range(rounds) for one in queues if turn < len(one)]
        chosen += in_turn[: count // 2]
    return chosen


@torch.inference_mode()
def attention_maps(
    detector: Detector, pictures: Sequence[Picture], crop_px: int
) -> list[AttentionMap]:
    """The mean over channels of |eps_hat|, in units of the target's standard deviation."""
    found = []
    for one in pictures:
        crop_HWC = center_crop(one.pixels_HWC, crop_px)
        eps_1CHW = detector.predict_noise(torch.from_numpy(crop_HWC.copy())[None])
        energy = eps_1CHW.float().abs().mean(dim=1, keepdim=True)
        # The noise of a latent teacher is coarser than the picture.
        energy = functional.interpolate(energy, size=(crop_px, crop_px))
        found.append(
            AttentionMap(one.source.key, one.source.label, crop_HWC, energy[0, 0].cpu().numpy())
        )
    return found
