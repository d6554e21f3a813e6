"""A study: which detectors are compared, left out of which families, in which order.

In: a TOML file. Out: a frozen ``StudyConfig``. Errors: ``ConfigError``, which says what to do.

``${NAME}`` in a variant's changes is looked up when a cell of it is due, not before: the rows
that need no second teacher run without one.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.config.base import Count, Part, Share
from trainer.config.toml import read_toml

Gate = Literal["off", "on"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Value = bool | int | float | str | tuple[str, ...]


class VariantConfig(Part):
    """A detector of the study: the base configuration with named changes."""

    # By dotted name: "loss.lambda_noise" = 0.0
    changes: dict[str, Value] = Field(default_factory=dict)
    gates: Annotated[tuple[Gate, ...], Field(min_length=1)] = ("off",)  # which graphs are judged


class RowConfig(Part):
    """A question of the study: variants against a baseline, over folds and seeds."""

    name: Name
    question: str
    baseline: Name
    variants: Annotated[tuple[Name, ...], Field(min_length=1)]
    seeds: tuple[int, ...] = ()  # of the study's; empty is all
    folds: Annotated[int, Field(ge=0)] = 0  # the first so many of the study's; 0 is all
    curve: str = ""  # the option whose value is the abscissa of this row's plot

    @property
    def trained(self) -> tuple[str, ...]:
        """The variants that have to be trained, the baseline first."""
        return (self.baseline, *(one for one in self.variants if one != self.baseline))


class StudyConfig(Part):
    """A whole study. The first row is the claim's; rows run in the order given."""

    base: Path  # a training configuration; a relative path is taken from the study's own folder
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    folds: Annotated[
        tuple[tuple[Name, ...], ...], Field(min_length=1)
    ]  # families left out together
    min_explained_variance: Share = 0.30  # below it a run does not count as ANL
    resamples: Count = 2000  # of the bootstrap
    variants: dict[Name, VariantConfig]
    rows: Annotated[tuple[RowConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        families = [family for fold in self.folds for family in fold]
        if not all(self.folds) or len(set(families)) != len(families):
            raise ValueError("folds: each needs a family, and a family is in one fold alone")
        if len({row.name for row in self.rows}) != len(self.rows):
            raise ValueError("rows: two have the same name")
        for row in self.rows:
            self._check_row(row)
        return self

    def _check_row(self, row: RowConfig) -> None:
        for variant in row.trained:
            if variant not in self.variants:
                raise ValueError(f"rows: {row.name} names {variant!r}, which is not in variants")
        if not set(row.seeds) <= set(self.seeds):
            raise ValueError(f"rows: {row.name} has a seed that is not the study's")
        if row.folds > len(self.folds):
            raise ValueError(f"rows: {row.name} asks for {row.folds} of {len(self.folds)} folds")

    def row_seeds(self, row: RowConfig) -> tuple[int, ...]:
        """The seeds of a row."""
        return row.seeds or self.seeds

    def row_folds(self, row: RowConfig) -> tuple[tuple[str, ...], ...]:
        """The folds of a row."""
        return self.folds[: row.folds] if row.folds else self.folds


class _Later(Mapping[str, str]):
    """An environment that leaves ``${NAME}`` as it is where the name is not set yet."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __getitem__(self, name: str) -> str:
        return self._environment.get(name, f"${{{name}}}")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)

    def __iter__(self) -> Iterator[str]:
        return iter(self._environment)

    def __len__(self) -> int:
        return len(self._environment)


def read_study(path: Path, environment: Mapping[str, str]) -> StudyConfig:
    """Read a study; its base is then a path that can be opened, its changes are as they are written.

    What ``${NAME}`` stands for in a change is looked up for a cell, and stays out of the study's report: it is
    this machine's own affair.
    """
    study = read_toml(StudyConfig, path, _Later({}))
    base = read_toml(StudyConfig, path, _Later(environment)).base
    return study.model_copy(update={"base": path.parent / base})
