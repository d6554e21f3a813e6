"""Content-matched pairs: a photograph's region beside a regeneration of it.

In: a folder as ``python -m trainer fakes`` writes it: PNG files, and ``pairs.jsonl``, which says
which belong together. Out: ``PairFiles`` (one region, all its regenerations) and ``Pair``
(pixels). Errors: ``DataError``; a corrupt file is passed on, or raises where ``strict`` says so.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from engines.preprocess import ImageError, Limits, decode_image
from trainer.data.errors import DataError
from trainer.data.lines import read_lines

PAIRS = "pairs.jsonl"


@dataclass(frozen=True)
class Pair:
    """A photograph's region and one regeneration of it, uint8 [H, W, 3] of one size."""

    photograph_key: str  # the photograph's ``Source.key``: real/FOLDER/FILE
    real_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    fake_HWC: NDArray[np.uint8]  # noqa: N815  the suffix is the tensor's shape
    family: str  # what regenerated it: taef2, srgan, ...


class PairLine(BaseModel):
    """A line of ``pairs.jsonl``; paths are relative to its folder."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    photograph: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # of the photograph's own file
    real: str
    fake: dict[str, str]  # by family


@dataclass(frozen=True)
class PairFiles:
    """One photograph's region and its regenerations, as files."""

    root: Path
    line: PairLine

    def digests(self) -> list[str]:
        """A line for each regeneration: the photograph, the family and the SHA-256 of both files."""
        real = _sha256(self.root / self.line.real)
        return [
            f"{self.line.photograph} {self.line.sha256} {real} {family} {_sha256(self.root / name)}"
            for family, name in sorted(self.line.fake.items())
        ]


def read_pair_files(roots: Sequence[Path], families: Sequence[str] = ()) -> list[PairFiles]:
    """The photographs of some folders with the regenerations of some families.

    Args:
        roots: folders with a ``pairs.jsonl``.
        families: patterns of families' names, each of which one folder at least must have; none is all. What
            has no such regeneration is left out.
    """
    advice = "name a folder that python -m trainer fakes wrote, whole"
    found = [
        PairFiles(root, line)
        for root in roots
        for line in read_lines(root / PAIRS, PairLine, advice)
    ]
    known = sorted({family for one in found for family in one.line.fake})
    for pattern in families:
        if found and not any(fnmatchcase(family, pattern) for family in known):
            raise DataError(
                f"pair_families: {', '.join(map(str, roots))} has no family {pattern!r}, but "
                f"{', '.join(known) or 'none'}"
            )
    kept = [_only(one, families) for one in found] if families else found
    return [one for one in kept if one.line.fake]


def _only(files: PairFiles, families: Sequence[str]) -> PairFiles:
    fake = {
        family: name
        for family, name in files.line.fake.items()
        if any(fnmatchcase(family, pattern) for pattern in families)
    }
    return PairFiles(files.root, files.line.model_copy(update={"fake": fake}))


def photographs_of(files: Iterable[PairFiles]) -> frozenset[str]:
    """The SHA-256 of each photograph; one of which sets hold several regions is one photograph."""
    return frozenset(one.line.sha256 for one in files)


def load_pairs(
    files: Iterable[PairFiles], *, strict: bool, on_skip: Callable[[str, ImageError], None]
) -> list[Pair]:
    """Decode the two of every pair; a region's pixels are held once.

    Args:
        files: what to decode.
        strict: whether a corrupt file stops the run.
        on_skip: is told of each file that is left out, and why.
    """
    pairs = []
    for one in files:
        real_HWC = _decoded(one.root / one.line.real, strict=strict, on_skip=on_skip)
        if real_HWC is None:
            continue
        for family, name in sorted(one.line.fake.items()):
            fake_HWC = _decoded(one.root / name, strict=strict, on_skip=on_skip)
            if fake_HWC is None:
                continue
            if fake_HWC.shape != real_HWC.shape:
                raise DataError(
                    f"{one.root / name} is of {fake_HWC.shape[1]} x {fake_HWC.shape[0]} px, its "
                    f"photograph {one.line.real} is not: delete both and make them again"
                )
            pairs.append(Pair(one.line.photograph, real_HWC, fake_HWC, family))
    return pairs


def _decoded(
    path: Path, *, strict: bool, on_skip: Callable[[str, ImageError], None]
) -> NDArray[np.uint8] | None:
    try:
        return decode_image(_bytes(path), Limits()).pixels_HWC
    except ImageError as error:
        if strict:
            raise DataError(f"{path}: {error}; delete it and make it again") from error
        on_skip(str(path), error)
        return None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}), but {PAIRS} names it: make the set again"
        ) from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(_bytes(path)).hexdigest()
