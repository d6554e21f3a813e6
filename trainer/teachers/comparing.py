"""Two or more teachers on the same crops: how well does each find noise that was added?

In: folders or hub ids, crops of photographs that none of them learnt. Out: ``Found`` for each teacher
and step. Errors: ``TeacherError``.

To find none gives an error of 1. A latent teacher is asked about noise in its latents, which is
another question than noise in pixels: compare its steps with each other, not with a pixel teacher's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.config import TeacherConfig
from trainer.teachers.opening import open_teacher

_BATCH = 16


@dataclass(frozen=True)
class Found:
    """One teacher at one step."""

    source: str
    teacher_id: str
    index: int
    error_N: NDArray[np.float64]  # noqa: N815  by photograph: the mean over its crops


def compare(
    sources: Sequence[str], indices: Sequence[int], x_NKCHW: Tensor, tile_px: int | None
) -> Iterator[Found]:
    """Ask each teacher at each step.

    Args:
        sources: diffusers folders or hub ids.
        indices: into the training schedule, 0 being the least noise.
        x_NKCHW: K crops of each of N photographs, [N, K, 3, S, S] in [-1, 1].
        tile_px: what a network sees at once; None is its own size in pixel space, and the whole
            crop for latents.
    """
    count, each = x_NKCHW.shape[:2]
    x_BCHW = x_NKCHW.flatten(0, 1)
    # The same noise for every teacher and step, so that they differ in nothing else.
    seeds = list(range(count * each))
    for source in sources:
        for index in indices:
            config = TeacherConfig(
                source=source, timestep_index=index, tile_px=tile_px, tile_overlap_px=0
            )
            teacher = open_teacher(config)
            errors = [
                teacher.noise_error(x_BCHW[start : start + _BATCH], seeds[start : start + _BATCH])
                for start in range(0, count * each, _BATCH)
            ]
            error_N = torch.cat(errors).reshape(count, each).double().mean(dim=1).cpu().numpy()
            yield Found(source, teacher.teacher_id, index, error_N)
