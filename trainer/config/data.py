"""Where the images are, how they are divided, and which fakes are made of them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from trainer.config.base import Count, Part

SPLITS = ("train", "validation", "calibration", "threshold", "test")


class SplitConfig(Part):
    """The files of one split, by selectors: ``docs/concepts/data.md`` has them all.

    ``name``, a glob, or ``repo:GLOB``; then perhaps ``[start:stop:step]`` by file name, or
    ``@prompt=0-2/4``: of four equal parts of the prompts (or ``repo``), the first three.
    """

    real: tuple[str, ...] = ()
    fake: tuple[str, ...] = ()


class SplitsConfig(Part):
    """Which folders serve what; a file must never serve two of them.

    ``train`` moves weights, ``validation`` chooses the epoch, ``calibration`` fits the score,
    ``threshold`` (real images) sets the operating points, ``test`` decides nothing.
    """

    train: SplitConfig
    validation: SplitConfig = SplitConfig()
    calibration: SplitConfig = SplitConfig()
    threshold: SplitConfig = SplitConfig()
    test: SplitConfig = SplitConfig()


class RegeneratorConfig(Part):
    """An autoencoder that turns training photographs into content-matched fakes."""

    kind: Literal["taef2"]
    weights: Path  # a folder with taef2_encoder.pth and taef2_decoder.pth
    images: Count = 300  # how many training photographs, evenly spread over the folders
    region_px: Annotated[int, Field(ge=16, multiple_of=8)] = 168


class DataConfig(Part):
    """Where the images are and how they are divided."""

    roots: tuple[Path, ...] = ()
    manifest: Path | None = None  # what python -m trainer data manifest wrote: nothing else is read
    allow_shared: tuple[Literal["repo", "prompt"], ...] = ()  # what two splits may have in common
    exclude: tuple[str, ...] = ()  # globs of "real/folder/file" that no split may hold
    region_px: Count = 512  # the central native pixels of an image that training keeps in memory
    strict: bool = False  # a corrupt image or a near duplicate stops the run, which else names it
    splits: SplitsConfig
    regenerators: tuple[RegeneratorConfig, ...] = ()
    pairs: tuple[Path, ...] = ()  # folders of content-matched fakes (python -m trainer fakes)
    pair_families: tuple[str, ...] = ()  # patterns of the regenerators to train on; empty is all
