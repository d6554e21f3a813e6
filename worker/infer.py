"""Infer: a batch of decoded images in, one result an image out, in the same order.

Repeated bytes within a batch are inferred once. If the engine fails on a batch, its images are tried one
by one: an image that fails alone is poison, unless a plain grey one fails after it: then the engine is broken.
Errors: :class:`Fatal` when the engine cannot score anything any more, :class:`DeviceGone` when its device is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.preprocess import Prepared
from engines.runtime.protocol import DeviceLost, Runtime, RuntimeFailure
from worker.errors import DeviceGone, Fatal, Poison
from worker.work import Score


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a batch: its crops, and the digest that tells repeats."""

    sha256: str
    image: Prepared


def infer_batch(runtime: Runtime, batch: Sequence[Item]) -> list[Score | Poison]:
    """Score every image of a batch.

    Returns:
        For each image its score, or the Poison that says why this one image cannot be scored.

    Raises:
        Fatal: An image failed, and then a plain grey one as well: the engine is broken, not the image.
        DeviceGone: The engine says that its device is lost: no image is to blame.
    """
    distinct = list({item.sha256: item for item in batch}.values())
    results = dict(zip((item.sha256 for item in distinct), _infer(runtime, distinct), strict=True))
    return [results[item.sha256] for item in batch]


def _infer(runtime: Runtime, items: Sequence[Item]) -> list[Score | Poison]:
    try:
        return list(_scores(runtime, items))
    except DeviceLost as error:
        raise DeviceGone(str(error)) from error
    except (RuntimeFailure, MemoryError) as error:
        results = [_isolated(runtime, item) for item in items]
        failed = [result for result in results if isinstance(result, Poison)]
        if failed and not _still_works(runtime, items[0]):
            raise Fatal(f"the engine cannot score anything any more: {error}") from error
        return results


def _isolated(runtime: Runtime, item: Item) -> Score | Poison:
    try:
        return _scores(runtime, [item])[0]
    except DeviceLost as error:
        raise DeviceGone(str(error)) from error
    except (RuntimeFailure, MemoryError) as error:
        return Poison("infer", "engine_failure", f"the engine fails on this image: {error}", 2)


def _still_works(runtime: Runtime, example: Item) -> bool:
    """Whether the engine can score a plain grey crop: tells a bad image from a broken engine."""
    grey_NHWC = np.full_like(example.image.image_NHWC[:1], 128)
    try:
        runtime.infer(grey_NHWC)
    except (RuntimeFailure, MemoryError):
        return False
    return True


def _scores(runtime: Runtime, items: Sequence[Item]) -> list[Score]:
    crops_NHWC = np.concatenate([item.image.image_NHWC for item in items])
    logit_N = _infer_chunks(runtime, crops_NHWC)
    ends = np.cumsum([len(item.image.image_NHWC) for item in items])
    per_image = np.split(logit_N, ends[:-1])
    return [
        Score(float(logits.mean()), item.image.mime, item.image.width_px, item.image.height_px)
        for item, logits in zip(items, per_image, strict=True)
    ]


def _infer_chunks(runtime: Runtime, crops_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Crops [N,H,W,3] to logits [N]: a batch may hold more crops than the engine takes at once."""
    step = runtime.batch_max
    parts = [
        runtime.infer(crops_NHWC[start : start + step]) for start in range(0, len(crops_NHWC), step)
    ]
    return np.concatenate(parts)
