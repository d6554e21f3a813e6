"""The configuration of a study: which changes of a base configuration are compared, and where."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from trainer.config.base import Part
from trainer.config.toml import parse_toml
from trainer.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
# By dotted name: "loss.lambda_noise" = 0.0
Changes = dict[str, bool | int | float | str | tuple[str, ...]]
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class RowConfig(Part):
    """A question of the study: variants that are compared with a baseline."""

    name: Name
    question: str
    baseline: Name
    variants: Annotated[tuple[Name, ...], Field(min_length=1)]


class StudyConfig(Part):
    """A grid of trainings: every variant of a row, without each fold, with each seed."""

    base: Path  # a training configuration; relative to the study's own file
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    # Generators that leave training together and are the test's fakes; none keeps the base's splits.
    folds: tuple[Annotated[tuple[Name, ...], Field(min_length=1)], ...] = ()
    variants: dict[Name, Changes]
    rows: Annotated[tuple[RowConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        generators = [generator for fold in self.folds for generator in fold]
        if len(set(generators)) < len(generators):
            raise ValueError("folds: a generator may be in one fold only")
        if len({row.name for row in self.rows}) < len(self.rows):
            raise ValueError("rows: two rows have the same name")
        for row in self.rows:
            for variant in (row.baseline, *row.variants):
                if variant not in self.variants:
                    raise ValueError(f"rows: {row.name} names {variant!r}, add it to variants")
        return self

    def selected(self, names: tuple[str, ...]) -> tuple[RowConfig, ...]:
        """The rows of these names in the study's order; no name selects all rows."""
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise ConfigError(f"unknown row {name!r}: choose from {', '.join(known)}")
        return tuple(row for row in self.rows if not names or row.name in names)


def read_study(path: Path) -> StudyConfig:
    """Read a study file.

    ``${NAME}`` in a change stays as written: the training process of a cell resolves it.

    Raises:
        ConfigError: the file cannot be read or is not valid.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): name a TOML file") from error
    as_written = {name: f"${{{name}}}" for name in _VARIABLE.findall(data.decode(errors="ignore"))}
    study = parse_toml(StudyConfig, data, as_written, str(path))
    return study.model_copy(update={"base": path.parent / study.base})
