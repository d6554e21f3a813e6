"""Crops to measure int8 ranges on: images as they are uploaded, through the one preprocessing.

In: a directory of images. Out: uint8 crops, and which files they are of. Errors: ``BundleError``.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from engines.manifest import BundleError, PreprocessSpec
from engines.preprocess import ImageError, Limits, prepare

_log = structlog.get_logger(__name__)
_MOST_CROPS: Final = 1024  # ranges hardly change after some hundreds; these are 150 MB at 224 px


@dataclass(frozen=True)
class Calibration:
    """What ranges are measured on: crops, uint8 [N, S, S, 3], and the SHA-256 of the files they are of."""

    image_NHWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    digests: frozenset[str]


NOTHING_READ: Final = Calibration(np.empty((0, 1, 1, 3), np.uint8), frozenset())


def read_calibration(directory: Path | None, spec: PreprocessSpec) -> Calibration:
    """The crops of every image below the directory, in the order of names.

    What is no image is passed over and counted in the log; the first ``_MOST_CROPS`` crops are taken.
    """
    if directory is None:
        raise BundleError(
            "int8 needs images to measure ranges on: name --calibration DIR with some hundreds of "
            "images as they are uploaded, none of them from the evaluation set"
        )
    if not directory.is_dir():
        raise BundleError(f"{directory} is no directory: name the calibration images' directory")
    crops: list[NDArray[np.uint8]] = []
    digests = set()
    found, skipped = 0, 0
    for path in sorted(one for one in directory.rglob("*") if one.is_file()):
        data = path.read_bytes()
        try:
            image_NHWC = prepare(data, spec, Limits()).image_NHWC
        except ImageError:
            skipped += 1
            continue
        crops.append(image_NHWC)
        digests.add(hashlib.sha256(data).hexdigest())
        found += len(image_NHWC)
        if found >= _MOST_CROPS:
            break
    if not crops:
        raise BundleError(f"{directory} holds no image: name the calibration images' directory")
    _log.info("calibration_read", images=len(crops), crops=found, no_images=skipped)
    return Calibration(np.concatenate(crops)[:_MOST_CROPS], frozenset(digests))
