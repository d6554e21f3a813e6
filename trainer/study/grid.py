"""Which trainings a study consists of, and the configuration of each. Nothing runs here.

In: a ``StudyConfig`` and its base ``Config``. Out: ``Cell`` and, for each, a ``Config``. Errors:
``StudyError`` for a family or a change that cannot be applied.

A variant that several rows name is trained once for each fold and seed. A family that is left
out is in no split but test: neither the weights nor the choice among them have seen it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic import ValidationError

from trainer.config import SPLITS, Config
from trainer.config.study import RowConfig, StudyConfig, Value
from trainer.errors import TrainerError
from trainer.training.checkpoint import flat_config

_VARIABLE = re.compile(r"\$\{(\w+)\}")
# Options that came after cells had been trained, and what was done before there was a choice: a cell that does
# that still is the same one, and a study of many hours need not begin anew.
_SINCE: Mapping[str, object] = {
    "detector.levels": 0,
    "detector.view": "picture",
    "train.frozen_norms": False,
    "train.keep": "best",
    "train.validate_pairs": False,
}


class StudyError(TrainerError):
    """A study that cannot go on as it is; the message says what to change."""


@dataclass(frozen=True)
class Cell:
    """One training: a variant, the families that it never sees, a seed."""

    row: str  # the first that asks for it
    variant: str
    fold: tuple[str, ...]
    seed: int

    @property
    def key(self) -> tuple[str, tuple[str, ...], int]:
        """What makes it this cell, whichever row asks."""
        return (self.variant, self.fold, self.seed)

    @property
    def name(self) -> str:
        """Words for a person, and the folder below ``cells``."""
        return f"{self.variant}/{fold_name(self.fold)}/seed{self.seed}"


def fold_name(fold: Iterable[str]) -> str:
    """``ldm+glid3xl``."""
    return "+".join(fold)


def row_cells(study: StudyConfig, row: RowConfig) -> list[Cell]:
    """The cells of a row: every fold at the first seed before any at the second.

    A row that is cut short then still compares whole: baseline and variants of a fold follow each
    other.
    """
    return [
        Cell(row.name, variant, fold, seed)
        for seed in study.row_seeds(row)
        for fold in study.row_folds(row)
        for variant in row.trained
    ]


def cells(study: StudyConfig, until: str | None = None, only: str | None = None) -> list[Cell]:
    """The cells of some rows, each once, in the order of the rows.

    Args:
        study: all rows.
        until: the last row, the first ones before it; None is the last there is.
        only: one row alone, in place of ``until``.
    """
    names = [row.name for row in study.rows]
    for name in (until, only):
        if name is not None and name not in names:
            raise StudyError(f"no row is called {name!r}: choose one of {', '.join(names)}")
    wanted = study.rows if until is None else study.rows[: names.index(until) + 1]
    if only is not None:
        wanted = tuple(row for row in study.rows if row.name == only)
    found: dict[tuple[str, tuple[str, ...], int], Cell] = {}
    for row in wanted:
        for cell in row_cells(study, row):
            found.setdefault(cell.key, cell)
    return list(found.values())


def derive(base: Config, study: StudyConfig, cell: Cell, environment: Mapping[str, str]) -> Config:
    """The configuration of a cell: the base, less the fold's families, with the changes."""
    tree = base.model_dump(mode="json")
    tree["seed"] = cell.seed
    for name, value in study.variants[cell.variant].changes.items():
        _set(tree, name, _looked_up(value, environment, cell.variant))
    _leave_out(tree["data"]["splits"], cell.fold)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in one['loc'])}: {one['msg']}"
            for one in error.errors(include_url=False)
        )
        raise StudyError(f"variants.{cell.variant}.changes do not fit: {problems}") from error


def digest(config: Config) -> str:
    """What a cell was trained with, but for where things are on this machine."""
    choices = {
        key: one
        for key, one in flat_config(config).items()
        if not key.startswith("evaluation.") and one != _SINCE.get(key)
    }
    text = json.dumps(choices, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def option(config: Config, name: str) -> float:
    """A number of a configuration by its dotted name: where a cell lies on a row's curve."""
    value: object = config.model_dump(mode="json")
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StudyError(f"rows: the curve {name!r} is no option with a number: name another")
    return float(value)


def learns_noise(config: Config) -> bool:
    """Whether the student is meant to learn what the targets say of the crop."""
    return config.loss.lambda_noise > 0 and config.teacher.control != "shuffled"


def _set(tree: dict[str, object], name: str, value: object) -> None:
    *path, last = name.split(".")
    for part in path:
        inner = tree.get(part)
        if not isinstance(inner, dict):
            raise StudyError(f"changes: the configuration has no table {part!r} for {name!r}")
        tree = inner
    if last not in tree:
        raise StudyError(f"changes: the configuration has no option {name!r}")
    tree[last] = value


def _looked_up(value: Value, environment: Mapping[str, str], variant: str) -> Value:
    if not isinstance(value, str):
        return value
    for name in _VARIABLE.findall(value):
        if name not in environment:
            raise StudyError(
                f"the variant {variant} refers to ${{{name}}}: set that environment variable, or "
                "stop before its row with --until"
            )
    return _VARIABLE.sub(lambda match: environment[match.group(1)], value)


def _leave_out(splits: dict[str, dict[str, list[str]]], fold: tuple[str, ...]) -> None:
    trained_on = {_folder(one) for one in splits["train"]["fake"]}
    for family in fold:
        if family not in trained_on:
            raise StudyError(
                f"folds: {family!r} is not in data.splits.train.fake of the base configuration: "
                "leaving it out changes nothing"
            )
    for split in SPLITS:
        kept = []
        for selector in splits[split]["fake"]:
            matched = [one for one in fold if fnmatchcase(one, _folder(selector))]
            if matched and _folder(selector) not in fold:
                raise StudyError(
                    f"folds: {selector!r} of splits.{split} would still hold {matched[0]!r}: "
                    "list its folders one by one in the base configuration"
                )
            kept += [] if matched else [selector]
        splits[split]["fake"] = kept
    splits["test"]["fake"] = list(fold)


def _folder(selector: str) -> str:
    return selector.partition("[")[0]
