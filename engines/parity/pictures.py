"""Pictures from folders: labelled ones to evaluate on, unlabelled ones to calibrate on.

In: a directory. Out: paths, chosen by their names alone, so the same at every call. Errors:
``BundleError``, where the directory has no pictures of the layout.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Final

from engines.manifest import BundleError

# What a precision below the model's may cost on the evaluation set.
AUC_LOSS_MAX: Final = 0.005


@dataclass(frozen=True)
class Labelled:
    """A picture whose truth is known from its folder."""

    path: Path
    is_fake: bool


@dataclass(frozen=True)
class Judge:
    """By what a precision is judged beside the model.

    Attributes:
        pictures: labelled; those that calibration used are left out.
        auc_loss_max: a precision may have this much less AUC.
    """

    pictures: Sequence[Labelled]
    auc_loss_max: float = AUC_LOSS_MAX


def labelled(directory: Path, per_folder: int | None = None) -> tuple[Labelled, ...]:
    """The pictures of ``real/NAME/*`` and ``fake/NAME/*``, at most ``per_folder`` of each folder."""
    found = tuple(
        Labelled(path, is_fake)
        for kind, is_fake in (("real", False), ("fake", True))
        for folder in _folders(directory / kind)
        for path in _shuffled(folder)[:per_folder]
    )
    if len({one.is_fake for one in found}) != 2:  # noqa: PLR2004  real and fake
        raise BundleError(
            f"{directory} has no pictures to evaluate on: it needs folders real/NAME and fake/NAME"
        )
    return found


def spread(directory: Path, count: int) -> tuple[Path, ...]:
    """At most ``count`` files from below the directory, as many from each folder as can be."""
    if not directory.is_dir():
        raise BundleError(f"{directory} is not a directory: name one that holds pictures")
    folders = [directory, *sorted(path for path in directory.rglob("*") if path.is_dir())]
    turns = zip_longest(*(_shuffled(folder) for folder in folders))
    found = [path for path in chain.from_iterable(turns) if path is not None]
    if not found:
        raise BundleError(f"{directory} holds no files: name a directory of pictures")
    return tuple(found[:count])


def auc(real: Iterable[float], fake: Iterable[float]) -> float:
    """P(a fake's score > a real's), ties counting half: the area under the ROC curve."""
    reals, fakes = sorted(real), list(fake)
    wins = sum((bisect_left(reals, one) + bisect_right(reals, one)) / 2 for one in fakes)
    return wins / (len(reals) * len(fakes))


def _folders(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from sorted(path for path in directory.iterdir() if path.is_dir())


def _shuffled(folder: Path) -> list[Path]:
    """A folder's files in an order that has nothing to do with their content."""
    files = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    return sorted(files, key=lambda path: hashlib.sha256(path.name.encode()).digest())
