"""Near duplicates: the same picture in two splits, under other bytes.

In: the files of each split. Out: pairs of files whose perceptual hashes are close. Errors:
``DataError`` where the configuration is strict.

A re-encoded, resized or slightly retouched copy leaks as a copy does, but a digest does not see it.
The hash: 32 x 32 grey levels, their discrete cosine transform, and of its 8 x 8 lowest frequencies
(without the mean) which are above their median: 63 bits.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn  # type: ignore[import-untyped]  # scipy ships no types

from engines.preprocess import ImageError, Limits, decode_image
from trainer.data.errors import DataError
from trainer.data.sources import Dataset, Source

_GREY_PX, _LOW = 32, 8
_CLOSE_BITS = 4  # of 63
_FLAT = 2.0  # a standard deviation of grey levels: below it, the bits are those of noise
_SHOWN = 5
_FILE = "perceptual-hashes.json"


@dataclass(frozen=True)
class Near:
    """Two files of different splits that show the same."""

    first: str  # a key
    first_split: str
    second: str
    second_split: str
    bits: int  # in which their hashes differ


def perceptual_hash(pixels_HWC: NDArray[np.uint8]) -> int | None:
    """The hash of a picture; None where it is too flat to have one."""
    grey = Image.fromarray(pixels_HWC).convert("L").resize((_GREY_PX,) * 2, Image.Resampling.BOX)
    grey_HW = np.asarray(grey, dtype=np.float64)
    if grey_HW.std() < _FLAT:
        return None
    low = np.asarray(dctn(grey_HW, norm="ortho"))[:_LOW, :_LOW].ravel()[1:]
    return int("".join("1" if one else "0" for one in low > np.median(low)), 2)


def hashes_of(sources: Iterable[Source], cache: Path) -> dict[str, int]:
    """The hash of each file by its digest; those that are known are not computed again."""
    path = cache / _FILE
    known: dict[str, int | None] = json.loads(path.read_text()) if path.exists() else {}
    wanted = {source.sha256: source for source in sources}
    fresh = {digest: _hash(one) for digest, one in wanted.items() if digest not in known}
    if fresh:
        cache.mkdir(parents=True, exist_ok=True)
        # Runs that start side by side share the cache: each writes a file of its own.
        partial = path.with_name(f"{_FILE}.{os.getpid()}.part")
        partial.write_text(json.dumps(known | fresh))
        partial.replace(path)
    every = known | fresh
    return {digest: found for digest in wanted if (found := every[digest]) is not None}


def _hash(source: Source) -> int | None:
    try:
        return perceptual_hash(decode_image(source.read(), Limits()).pixels_HWC)
    except ImageError:
        return None  # whoever loads it names it


def near_duplicates(
    splits: Mapping[str, Sequence[Source]], hashes: Mapping[str, int]
) -> list[Near]:
    """Every two files of different splits whose hashes differ in few bits."""
    files = [
        (split, one.key, hashes[one.sha256])
        for split, sources in splits.items()
        for one in sources
        if one.sha256 in hashes
    ]
    hash_N = np.array([one[2] for one in files], dtype=np.uint64)
    found = []
    for at, (split, key, own) in enumerate(files):
        bits_N = np.bitwise_count(hash_N[at + 1 :] ^ np.uint64(own))
        for other in np.flatnonzero(bits_N <= _CLOSE_BITS):
            second_split, second, _ = files[at + 1 + int(other)]
            if second_split != split:
                found.append(Near(key, split, second, second_split, int(bits_N[other])))
    return sorted(found, key=lambda one: (one.bits, one.first, one.second))


def check_near(dataset: Dataset, cache: Path, *, strict: bool) -> list[str]:
    """A line that says what is nearly the same in two splits; none where nothing is."""
    every = [one for sources in dataset.splits.values() for one in sources]
    found = near_duplicates(dataset.splits, hashes_of(every, cache))
    if not found:
        return []
    shown = "; ".join(
        f"{one.first} ({one.first_split}) and {one.second} ({one.second_split})"
        for one in found[:_SHOWN]
    )
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    line = f"{len(found)} near duplicates across splits: {shown}{more}"
    if strict:
        raise DataError(f"{line}: look at them and exclude one of each, or run without strict")
    return [line]
