"""Which pictures of a tree become which folders: the file of ``python -m trainer data gather``.

In: the bytes of a TOML file. Out: ``GatherConfig``. Errors: ``ConfigError``.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from trainer.config.base import Count, Part

Level = Annotated[int, Field(ge=0, le=255)]


class FolderConfig(Part):
    """One folder of real pictures, and where in the tree they come from."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    patterns: Annotated[tuple[str, ...], Field(min_length=1)]  # of paths in the tree, as a shell's
    exclude: tuple[str, ...] = ()
    images: Count = 1000  # of what matches, large enough or not; evenly spread by path
    min_px: Count = 224  # of the shorter side
    longer_px: Count = 1600  # a larger picture is shrunk to it
    # What shows where a picture is transparent: pixels there were never meant to be seen.
    background: tuple[Level, Level, Level] = (255, 255, 255)


class GatherConfig(Part):
    """A data set out of a tree of files."""

    folders: Annotated[tuple[FolderConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [one.name for one in self.folders]
        if len(set(names)) < len(names):
            raise ValueError("two folders have the same name")
        return self
