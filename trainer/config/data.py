"""Where the images are, and how they are divided."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from trainer.config.base import Count, Part

SPLITS = ("train", "validation", "calibration", "threshold", "test")
_SELECTOR = re.compile(r"[@:]|\[[^\]]*:")  # folder[:-40], folder@prompt=0/4, repo:owner/*


def _whole_folder(name: str) -> str:
    if _SELECTOR.search(name):
        raise ValueError(
            f"{name!r}: parts of a folder were removed from the configuration. Write a manifest "
            "(python -m trainer data manifest), divide it (data split), and set data.manifest"
        )
    return name


FolderPattern = Annotated[str, AfterValidator(_whole_folder)]


class SplitConfig(Part):
    """The folders of one split, by name or glob: of ``real/`` and of ``fake/``."""

    real: tuple[FolderPattern, ...] = ()
    fake: tuple[FolderPattern, ...] = ()


class SplitsConfig(Part):
    """Which folders serve what; a folder serves one split.

    ``train`` moves weights, ``validation`` chooses the epoch, ``calibration`` fits the score,
    ``threshold`` (real images) sets the operating points, ``test`` decides nothing.
    """

    train: SplitConfig = SplitConfig()
    validation: SplitConfig = SplitConfig()
    calibration: SplitConfig = SplitConfig()
    threshold: SplitConfig = SplitConfig()
    test: SplitConfig = SplitConfig()


class DataConfig(Part):
    """Where the images are and how they are divided."""

    removed: ClassVar[Mapping[str, str]] = {
        "regenerators": "make the pairs with python -m trainer fakes, and name their folder in data.pairs"
    }

    roots: tuple[Path, ...] = ()
    # A CSV file with the columns path and split (python -m trainer data manifest). The images that it
    # lists have the split of their row, and the others that of their folder in `splits`.
    manifest: Path | None = None
    splits: SplitsConfig = SplitsConfig()
    hold_out: tuple[str, ...] = ()  # generators of which every image is in the test split
    exclude: tuple[str, ...] = ()  # globs of "real/folder/file" that no split may hold
    allow_shared: tuple[Literal["repo", "prompt"], ...] = ()  # what two splits may have in common
    region_px: Count = 512  # the central native pixels of an image that training keeps in memory
    strict: bool = False  # warnings about the data are errors; else they are printed
    pairs: tuple[Path, ...] = ()  # folders of content-matched fakes (python -m trainer fakes)
    pair_families: tuple[str, ...] = ()  # patterns of the regenerators to train on; empty is all
