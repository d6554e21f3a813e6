"""Native crops of photographs for a diffusion model: random ones to learn, fixed ones to measure.

In: pictures and a generator. Out: crops [B, 3, S, S] fp32 in [-1, 1]. Errors: ``TeacherError`` where
no picture is large enough.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.dataset import Picture
from trainer.teachers.errors import TeacherError


def large_enough(pictures: Sequence[Picture], side_px: int, split: str) -> list[Picture]:
    """The pictures that hold a crop; nothing is scaled up, since that would hide the noise."""
    found = [one for one in pictures if min(one.pixels_HWC.shape[:2]) >= side_px]
    if not found:
        raise TeacherError(
            f"no picture of the {split} split has {side_px} px on both sides: "
            "lower network.resolution_px, or name larger photographs"
        )
    return found


def drawn(
    pictures: Sequence[Picture], count: int, side_px: int, random: np.random.Generator
) -> Tensor:
    """Random crops of random pictures, half of them mirrored."""
    chosen = random.integers(0, len(pictures), size=count)
    crops = [_crop(pictures[int(index)].pixels_HWC, side_px, random) for index in chosen]
    mirrored = [one[:, ::-1] if random.random() < 0.5 else one for one in crops]  # noqa: PLR2004  one half
    return as_tensor(mirrored)


def spread(pictures: Sequence[Picture], count: int, side_px: int, seed: int) -> Tensor:
    """As many crops, evenly spread over the pictures, at places that the seed draws."""
    random = np.random.default_rng(seed)
    chosen = [pictures[index * len(pictures) // count] for index in range(count)]
    return as_tensor([_crop(one.pixels_HWC, side_px, random) for one in chosen])


def several(pictures: Sequence[Picture], each: int, side_px: int, seed: int) -> Tensor:
    """As many crops of every picture, at places that the seed draws: [N, each, 3, S, S]."""
    random = np.random.default_rng(seed)
    crops = [_crop(one.pixels_HWC, side_px, random) for one in pictures for _ in range(each)]
    return as_tensor(crops).view(len(pictures), each, 3, side_px, side_px)


def _crop(
    pixels_HWC: NDArray[np.uint8], side_px: int, random: np.random.Generator
) -> NDArray[np.uint8]:
    top, left = (int(random.integers(0, one - side_px + 1)) for one in pixels_HWC.shape[:2])
    return pixels_HWC[top : top + side_px, left : left + side_px]


def as_tensor(crops: Sequence[NDArray[np.uint8]]) -> Tensor:
    """uint8 crops [S, S, 3] as one batch in [-1, 1]."""
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
